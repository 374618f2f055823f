"""Softmax and sigmoid over large batches on one device: time and memory, beside open_clip's.

Value and gradients by both sides of embeddings of 512 numbers. Memory of ours is the compiler's
figure, of torch what its allocator took at most; arguments are left out of both.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ape_jax.align import losses
from tests.accelerator.fast import compare, peer
from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings

WIDTH, SCALE, BIAS = 512, 20.0, -10.0
SIZES = (4096, 16_384, 65_536, 262_144)
MIB = 2**20


def run(settings: Settings, figures: Figures) -> None:
    """Prints every loss at every size."""
    if not peer.missing(settings):
        found = "open_clip's own" if _open_clip() else "open_clip's, restated in torch"
        figures.measured("losses of torch", found, "")
    for size in (64,) if settings.small else SIZES:
        for name in ("softmax", "sigmoid"):
            for dtype in ("float32", "bfloat16"):
                figure = f"{name} {dtype}, {size:,} x {WIDTH}"
                if compare.has_time(settings, figures, figure, seconds=40):
                    _loss(settings, figures, figure, name, dtype, size)


def _loss(
    settings: Settings, figures: Figures, figure: str, name: str, dtype: str, size: int
) -> None:
    """The form that `auto` takes is ours; the other one stands beside it."""
    scalars = (SCALE,) if name == "softmax" else (SCALE, BIAS)
    zimg, ztxt = _embeddings(size, dtype)
    calls: dict[str, Callable[[], Any]] = {}
    beside: dict[str, Any] = {}
    auto = losses.contrastive.chosen("auto", size, None)
    for form in (auto, *({"ring", "dense"} - {auto})):
        program = _program(figures, f"{figure}: {form}", name, form, zimg, ztxt, scalars)
        if program is not None:
            key = compare.OURS if form == auto else f"ours, {form}"
            calls[key] = lambda run=program: run(zimg, ztxt)
            beside[f"MiB, {form}"] = program.memory_analysis().temp_size_in_bytes / MIB
    peers = {} if peer.missing(settings) else _torch(settings, name, dtype, zimg, ztxt, scalars)
    calls |= compare.that_fit(settings, figures, figure, peers, beside)
    least = min((x for key, x in beside.items() if "torch" in key), default=None)
    if least and (mine := beside.get(f"MiB, {auto}")):
        beside["torch's memory by ours"] = least / mine
    # One product forward, two backward; a ring makes the first one twice.
    work = 3 * 2.0 * size**2 * WIDTH
    how = {"rows": size, "unit": "pairs/s", "flops": work, "dtype": dtype}
    compare.figure(settings, figures, figure, calls, **how, beside={"form": auto, **beside})


def _embeddings(size: int, dtype: str) -> tuple[jax.Array, jax.Array]:
    """Pairs a little nearer to each other than to the rest, of unit length."""
    a, b = jax.random.normal(jax.random.key(0), (2, size, WIDTH))
    unit = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, a + b))
    one, two = (x.astype(dtype) for x in unit)
    return one, two


def _program(
    figures: Figures, figure: str, name: str, form: str, zimg: Any, ztxt: Any, scalars: Any
) -> Any:
    """The compiled value and gradients, None where they do not fit."""

    def loss(zimg: Any, ztxt: Any, *scalars: Any) -> Any:
        return getattr(losses, name)(zimg, ztxt, *scalars, impl=form)

    def step(zimg: Any, ztxt: Any) -> Any:
        places = tuple(range(2 + len(scalars)))
        return jax.value_and_grad(loss, argnums=places)(zimg, ztxt, *map(jnp.float32, scalars))

    found: list[Any] = []
    lowered = jax.jit(step).lower(zimg, ztxt)
    compare.fits(figures, figure, lambda: found.append(lowered.compile()))
    return found[0] if found else None


def _open_clip() -> Path | None:
    """open_clip's file of losses: importing the whole package would ask for torchvision."""
    spec = importlib.util.find_spec("open_clip")
    return Path(spec.submodule_search_locations[0]) / "loss.py" if spec else None


def _torch(
    settings: Settings, name: str, dtype: str, zimg: Any, ztxt: Any, scalars: tuple[float, ...]
) -> dict[str, Callable[[], Any]]:
    """Its loss in every form."""
    import numpy as np
    import torch

    where, kind = peer.device(settings), getattr(torch, dtype)
    # As open_clip trains in bf16: features narrow, the scale in f32 brought to their dtype.
    tensors = [torch.tensor(np.asarray(z, np.float32), device=where).to(kind) for z in (zimg, ztxt)]
    tensors += [torch.tensor(x, device=where) for x in scalars]
    loss = _module(name) or (_softmax if name == "softmax" else _sigmoid)

    def runs(form: peer.Form) -> Callable[[], Any]:
        call = form.compile(loss)

        def run() -> None:
            for x in tensors:
                x.grad = None
                x.requires_grad_()
            with form.on():
                call(*tensors).backward()

        return run

    return {form.name: runs(form) for form in peer.forms(settings, dtype)}


def _module(name: str) -> Any:
    """open_clip's own loss on one process."""
    path = _open_clip()
    if path is None:
        return None
    spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return (module.ClipLoss if name == "softmax" else module.SigLipLoss)()


def _softmax(zimg: Any, ztxt: Any, scale: Any) -> Any:
    """CLIP's loss as open_clip computes it on one device: two products, two cross entropies."""
    import torch
    from torch.nn.functional import cross_entropy

    by_image, by_text = scale * zimg @ ztxt.T, scale * ztxt @ zimg.T
    labels = torch.arange(len(zimg), device=zimg.device)
    return (cross_entropy(by_image, labels) + cross_entropy(by_text, labels)) / 2


def _sigmoid(zimg: Any, ztxt: Any, scale: Any, bias: Any) -> Any:
    """SigLIP's loss as open_clip computes it on one device: labels are 1 and -1."""
    import torch
    from torch.nn.functional import logsigmoid

    logits = scale * zimg @ ztxt.T + bias
    labels = 2 * torch.eye(len(zimg), device=zimg.device, dtype=zimg.dtype) - 1
    return -logsigmoid(labels * logits).sum() / len(zimg)
