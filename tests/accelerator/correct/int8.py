"""Frozen towers in one byte a weight: products, rounding, and features beside float32."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from ape_jax import towers
from ape_jax.nn import int8
from tests.accelerator.correct import apart
from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings
from tests.benchmarks import parity

# Products of the integers with a scale behind them, and of the kernel that was scaled before: as
# tests/nn/test_int8.py has them on a processor, ten times as much in float32 for another order.
FLOAT32, BFLOAT16 = 1e-4, 3e-2
# Off a cosine of 1. In a row of a random kernel the largest weight is 3.5 times the usual one, and
# rounding to 127ths of it is off by 0.8 % of that. Twelve blocks have 72 kernels, whose errors are
# independent: 72 x 0.008^2 / 2. (The demo's tower, which is trained, is within 1e-3.)
COSINE = 2.5e-3


def run(settings: Settings, figures: Figures) -> None:
    """Prints what rounding costs and whether the device multiplies the integers right."""
    _kernels(settings, figures)
    for kind in ("image", "text"):
        with tempfile.TemporaryDirectory() as folder:
            parity.save(_model(kind, settings), pathlib.Path(folder), kind)
            _tower(kind, pathlib.Path(folder), settings, figures)


def _kernels(settings: Settings, figures: Figures) -> None:
    rng = np.random.default_rng(0)
    shape = (2, settings.pick(1024, 64), settings.pick(4096, 256))
    kernel = rng.normal(size=shape).astype(np.float32) * np.geomspace(1e-3, 10, shape[-1])
    params = {"blocks": {"fc1": {"kernel": kernel.astype(np.float32)}}}
    narrow = jax.jit(int8.quantized)(jax.tree.map(jnp.asarray, params))
    back = np.asarray(int8.restored(narrow)["blocks"]["fc1"]["kernel"])
    step = np.abs(kernel).max(axis=1, keepdims=True) / 127
    # Half a step is what rounding to nearest is; the rest is the rounding of the quotient.
    figures.checked("a kernel", (np.abs(back - kernel) / step).max(), bound=0.5001, unit="steps")


def _model(kind: str, settings: Settings) -> Any:
    """A tower of transformers whose blocks change what they are given, as trained ones do."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": settings.pick(384, 64),
        "num_hidden_layers": settings.pick(12, 2),
        "num_attention_heads": settings.pick(6, 4),
        "intermediate_size": settings.pick(1536, 128),
    }
    if kind == "image":
        config = transformers.ViTConfig(**sizes, image_size=settings.pick(224, 32), patch_size=16)
        model = transformers.ViTModel(config, add_pooling_layer=False)
    else:
        config = transformers.BertConfig(**sizes, vocab_size=parity.VOCABULARY)
        model = transformers.BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn(parameter.shape) / parameter.shape[1] ** 0.5)
    return model.eval()


def _tower(kind: str, folder: pathlib.Path, settings: Settings, figures: Figures) -> None:
    plain, wide = towers.read(folder, kind=kind, dtype="float32")
    batch = next(iter(parity.batches(kind, plain)))
    want = _features(plain, wide, batch)
    for dtype, bound in (("float32", FLOAT32), ("bfloat16", BFLOAT16)):
        tower, params = towers.read(folder, kind=kind, dtype=dtype, param_dtype="int8")
        got = _features(tower, params, batch)
        restored = _features(plain, int8.restored(params), batch)
        title = f"{kind} tower, {dtype}"
        off = apart(_real(got, batch), _real(restored, batch))
        figures.checked(f"{title}, beside the restored", off, bound=bound, unit="of the largest")
        off = 1 - _cosines(_pooled(got, batch), _pooled(want, batch)).min()
        figures.checked(f"{title}, beside float32", off, bound=COSINE, unit="off a cosine of 1")


def _features(tower: Any, params: Any, batch: dict[str, np.ndarray]) -> np.ndarray:
    program = jax.jit(lambda p, b: tower.apply(p, b, pooling="none").tokens)
    return np.asarray(program(params, batch), np.float64)


def _real(tokens: np.ndarray, batch: dict[str, np.ndarray]) -> np.ndarray:
    return tokens[batch["mask"]] if "mask" in batch else tokens


def _pooled(tokens: np.ndarray, batch: dict[str, np.ndarray]) -> np.ndarray:
    """The mean of the real tokens."""
    weight = batch.get("mask", np.ones(tokens.shape[:2]))[..., None]
    return (tokens * weight).sum(axis=1) / weight.sum(axis=1)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
