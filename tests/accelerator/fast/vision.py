"""Encoding images: the jitted tower, and all the way from images to features on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ape_jax.features import encode
from ape_jax.parallel import mesh as mesh_lib
from tests.accelerator.fast import compare, peer, shapes
from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings

BATCHES = 4  # That the encoder is given at a time.
CASES = (
    ("ViT-L/14", "bfloat16", 256),
    ("ViT-B/16", "bfloat16", 256),
    ("ViT-L/14", "bfloat16", 64),
    ("ViT-B/16", "bfloat16", 64),
    ("ViT-L/14", "float32", 64),
    ("ViT-B/16", "float32", 64),
)
STREAMS = (("ViT-L/14", "bfloat16"), ("ViT-B/16", "bfloat16"), ("ViT-B/16", "float32"))


def run(settings: Settings, figures: Figures) -> None:
    """Prints images a second of every tower, dtype and batch."""
    if why := peer.missing(settings):
        figures.left_out("torch", why)
    for name, dtype, batch in CASES[:1] if settings.small else CASES:
        figure = f"{name} {dtype}, {batch} images"
        if compare.has_time(settings, figures, figure, seconds=90):
            _tower(settings, figures, figure, name, dtype, batch)
    for name, dtype in STREAMS[-1:] if settings.small else STREAMS:
        figure = f"{name} {dtype}, host to host"
        if compare.has_time(settings, figures, figure):
            _encoder(settings, figures, figure, name, dtype)


def _tower(
    settings: Settings, figures: Figures, figure: str, name: str, dtype: str, batch: int
) -> None:
    """Images that lie on the device, CLS that stays there."""
    config, batch = shapes.vision(settings, name), settings.pick(batch, 2)
    images = _images(config, batch)
    tower, params = shapes.ours(config, "image", dtype)
    reader = _reader(tower, params, batch)
    placed = mesh_lib.place_whole_batch({"image": images}, reader.mesh, batch)
    forward, weights = reader.program, reader._forward[1]
    calls: dict[str, Callable[[], Any]] = {compare.OURS: lambda: forward(weights, placed).pooled}
    for key, (_, call) in _peers(settings, config, dtype).items():
        pixels = _pixels(settings, images, dtype)
        calls[key] = lambda call=call, x=pixels: call(x).last_hidden_state[:, 0]
    work = shapes.flops(config, [shapes.tokens_of(config)] * batch)
    how = {"rows": batch, "unit": "images/s", "flops": work, "dtype": dtype}
    compare.figure(settings, figures, figure, calls, **how)


def _encoder(settings: Settings, figures: Figures, figure: str, name: str, dtype: str) -> None:
    """`stream_images`, as extraction calls it, beside the same in torch."""
    config, batch = shapes.vision(settings, name), settings.pick(128, 2)
    images = _images(config, batch)
    reader = _reader(*shapes.ours(config, "image", dtype), batch)
    rows = {"index": np.arange(batch, dtype=np.int32), "view": np.zeros(batch, np.int32)}
    given = {"image": images, **rows, "valid": np.ones(batch, bool)}

    def ours() -> list[np.ndarray]:
        return [out for _, _, out in reader.stream_images([given] * BATCHES)]

    calls: dict[str, Callable[[], Any]] = {compare.OURS: ours}
    for key, (_, call) in _peers(settings, config, dtype).items():

        def peers(call: Callable[..., Any] = call) -> list[np.ndarray]:
            # Started one after the other and fetched at the end: the host does not wait between.
            out = [
                call(_pixels(settings, images, dtype)).last_hidden_state[:, 0]
                for _ in range(BATCHES)
            ]
            return [x.float().cpu().numpy() for x in out]

        calls[key] = peers
    work = BATCHES * shapes.flops(config, [shapes.tokens_of(config)] * batch)
    how = {"rows": BATCHES * batch, "unit": "images/s", "flops": work, "dtype": dtype}
    compare.figure(settings, figures, figure, calls, **how)


def _images(config: dict[str, Any], batch: int) -> np.ndarray:
    size = config["image_size"]
    return np.random.default_rng(0).standard_normal((batch, size, size, 3), np.float32)


def _pixels(settings: Settings, images: np.ndarray, dtype: str) -> Any:
    """The same as torch has them: channels first, in the model's dtype."""
    import torch

    there = torch.from_numpy(images).to(peer.device(settings), non_blocking=True)
    return there.permute(0, 3, 1, 2).contiguous().to(getattr(torch, dtype))


def _peers(settings: Settings, config: dict[str, Any], dtype: str) -> dict[str, Any]:
    if not shapes.has_transformers():
        return {}
    return peer.models(settings, dtype, lambda kind: shapes.torch_model(config, kind))


def _reader(tower: Any, params: Any, batch: int) -> encode.FrozenTower:
    """As a run has it, on this device alone."""
    mesh = mesh_lib.make_mesh(1)
    placed = mesh_lib.place_replicated(params, mesh)
    return encode.FrozenTower(tower=tower, params=placed, mesh=mesh, batch=batch, pooling="cls")
