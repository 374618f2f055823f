"""The training step of APE's head, on packed tokens that lie on the device, beside torch's.

Both skip padding and let the last layer act on pooled vectors; tests/benchmarks/head_step.py and
torch_head.py are the two sides. Widths are those of BERT-large and ViT-L: 1,024.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from ape_jax.features.ragged import RaggedTokens
from tests.accelerator.fast import compare, peer
from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings
from tests.benchmarks import head_step

WIDTH = 1024  # Of a token and of an image.
SHAPES = ((4, 1024), (6, 4096))
BATCHES = (1024, 4096, 16_384, 65_536)


def run(settings: Settings, figures: Figures) -> None:
    """Prints pairs a second of every shape, batch and dtype."""
    cases = [(d, w, b, "bfloat16") for b in BATCHES for d, w in SHAPES]
    cases += [(4, 1024, 4096, "float32")]
    for depth, width, batch, dtype in cases[:1] if settings.small else cases:
        figure = f"{depth} x {width} {dtype}, {batch:,} pairs"
        if compare.has_time(settings, figures, figure):
            _step(settings, figures, figure, depth, settings.pick(width, 32), batch, dtype)


def arguments(depth: int, width: int, batch: int, dtype: str, side: int) -> argparse.Namespace:
    """The flags of head_step.py for a head; `side` is the width of tokens and images."""
    shape = {"depth": depth, "width": width, "token_width": side, "image_width": side}
    return argparse.Namespace(batch=batch, dtype=dtype, forms="packed", lengths="coco", **shape)


def features(args: argparse.Namespace) -> tuple[RaggedTokens, np.ndarray]:
    """Tokens of captions as long as COCO's, and pooled images."""
    rng = np.random.default_rng(0)
    lengths = head_step.draw_lengths(args.lengths, args.batch, rng)
    # Repeated noise: a million rows of it would take longer to draw than all that is measured.
    drawn = rng.standard_normal((min(lengths.sum(), 2**16), args.token_width), np.float32)
    flat = np.resize(drawn.astype(jnp.dtype(args.dtype)), (lengths.sum(), args.token_width))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    pooled = rng.standard_normal((args.batch, args.image_width), np.float32)
    return RaggedTokens(flat, offsets), pooled


def _step(
    settings: Settings,
    figures: Figures,
    figure: str,
    depth: int,
    width: int,
    batch: int,
    dtype: str,
) -> None:
    side = settings.pick(WIDTH, 32)
    args = arguments(depth, width, settings.pick(batch, 16), dtype, side)
    tokens, pooled = features(args)
    bench = head_step.Bench(args, tokens, pooled)
    calls: dict[str, Callable[[], Any]] = {compare.OURS: bench.stepper(bench.batches()["packed"])}
    calls |= _torch(settings, bench, tokens, pooled)
    how = {"rows": args.batch, "unit": "pairs/s", "flops": bench.flops(), "dtype": dtype}
    real = {"tokens": int(tokens.lengths.sum())}
    compare.figure(settings, figures, figure, calls, **how, beside=real)


def _torch(
    settings: Settings, bench: head_step.Bench, tokens: RaggedTokens, pooled: np.ndarray
) -> dict[str, Callable[[], Any]]:
    """Its forms: in bf16 autocast, with parameters and optimizer in f32 as ours has them."""
    if peer.missing(settings):
        return {}
    import torch

    from tests.benchmarks.torch_head import TorchHead

    where, dtype = peer.device(settings), bench.args.dtype
    zimg = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    optim = {k: bench.optim[k] for k in ("lr", "b1", "b2", "weight_decay", "clip")}
    params = bench.trainable["text_head"]

    def runs(form: peer.Form) -> Callable[[], Any]:
        kind = getattr(torch, form.dtype)
        head = TorchHead(params, kind, form.compiled, optim, where)
        placed = head.place(np.asarray(tokens.flat, np.float32), tokens.lengths, zimg)

        def run() -> None:
            with form.on():
                head.step(placed)

        return run

    return {form.name: runs(form) for form in peer.forms(settings, dtype)}
