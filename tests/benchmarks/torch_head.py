"""The peer of `head_step`: APE's head trained in torch, on packed tokens, as torch does it best."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


class TorchHead:
    """Forward, loss, backward, clipping and AdamW; padding is skipped, the last layer acts last.

    Args:
      params: `dense_i/kernel`, `dense_i/bias` as the project's head starts from.
      dtype: float32, float64 (the reference), or bfloat16, which means autocast: what torch users
        do, with parameters and optimizer in f32.
      compiled: whether forward and loss go through `torch.compile`.
      optim: lr, b1, b2, weight_decay, clip.
      device: of torch.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        dtype: torch.dtype,
        compiled: bool,
        optim: Mapping[str, float],
        device: str = "cpu",
    ):
        kept = torch.float64 if dtype == torch.float64 else torch.float32
        self.params = [
            torch.tensor(np.asarray(params[f"dense_{i}"][name]).T.copy(), dtype=kept, device=device)
            for i in range(len(params))
            for name in ("kernel", "bias")
        ]
        self.params.append(torch.tensor(np.log(1 / 0.07), dtype=kept, device=device))
        for p in self.params:
            p.requires_grad_()
        self._kept, self._dtype, self._clip, self._device = kept, dtype, optim["clip"], device
        self._optimizer = torch.optim.AdamW(
            self.params,
            lr=optim["lr"],
            betas=(optim["b1"], optim["b2"]),
            weight_decay=optim["weight_decay"],
            fused=kept == torch.float32,
        )
        self._loss = torch.compile(self._forward, dynamic=False) if compiled else self._forward

    def place(self, tokens: np.ndarray, lengths: np.ndarray, zimg: np.ndarray) -> tuple[Any, ...]:
        """Tokens [S, d] end to end, lengths [B] and unit-length image features as tensors."""
        lengths = torch.as_tensor(lengths).long().to(self._device)
        segments = torch.repeat_interleave(torch.arange(len(lengths), device=self._device), lengths)
        stored = torch.bfloat16 if self._dtype == torch.bfloat16 else self._kept
        return (
            torch.tensor(tokens).to(self._device, stored),
            segments,
            lengths.to(self._kept)[:, None],
            torch.tensor(zimg).to(self._device, self._kept),
        )

    def _forward(self, tokens, segments, lengths, zimg):
        narrow = self._dtype == torch.bfloat16
        with torch.autocast(self._device, torch.bfloat16) if narrow else contextlib.nullcontext():
            x = tokens
            for i in range(0, len(self.params) - 3, 2):
                x = torch.nn.functional.linear(x, self.params[i], self.params[i + 1])
                x = torch.nn.functional.gelu(x)
            zeros = torch.zeros(len(lengths), x.shape[1], dtype=x.dtype, device=x.device)
            sums = zeros.index_add(0, segments, x)
            pooled = sums / lengths
            z = torch.nn.functional.linear(pooled, self.params[-3], self.params[-2])
        z = torch.nn.functional.normalize(z.to(self._kept), dim=1)
        logits = torch.exp(self.params[-1]) * (zimg @ z.T)
        labels = torch.arange(len(logits), device=logits.device)
        cross_entropy = torch.nn.functional.cross_entropy
        return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2

    def gradient(self, placed: tuple[Any, ...]) -> np.ndarray:
        """All gradients of one batch, flat, f64; kernels as torch lays them out."""
        self._optimizer.zero_grad(set_to_none=True)
        self._loss(*placed).backward()
        return np.concatenate([p.grad.double().cpu().numpy().ravel() for p in self.params])

    def step(self, placed: tuple[Any, ...]) -> None:
        """One training step."""
        self._optimizer.zero_grad(set_to_none=True)
        self._loss(*placed).backward()
        torch.nn.utils.clip_grad_norm_(self.params, self._clip)
        self._optimizer.step()


def contestants(
    params: Mapping[str, Any], dtype: str, optim: Mapping[str, float], compiled: bool
) -> dict[str, tuple[str, Callable[[], TorchHead]]]:
    """Name -> (float32 matmul precision, how to make it) of every fair form for a precision."""
    forms = {"float32": [(torch.float32, "highest"), (torch.float32, "high")]}
    forms["bfloat16"] = [(torch.bfloat16, "highest"), (torch.float32, "medium")]
    made: dict[str, tuple[str, Callable[[], TorchHead]]] = {}
    for kind, precision in forms[dtype]:
        for through in (False, True) if compiled else (False,):
            name = f"{'compile' if through else 'eager'} {str(kind)[6:]} {precision}"
            made[name] = (
                precision,
                lambda kind=kind, through=through: TorchHead(params, kind, through, optim),
            )
    return made
