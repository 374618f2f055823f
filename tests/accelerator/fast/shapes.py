"""Towers of the real shapes with random weights, ours and torch's, and the work that they do."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ape_jax import towers
from ape_jax.towers.tower import Kind, Tower
from tests.accelerator.settings import Settings

_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
_TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_VIT = {"model_type": "vit", "image_size": 224}
VISION: Mapping[str, dict[str, Any]] = {
    "ViT-B/16": {**_VIT, **_BASE, "patch_size": 16, "intermediate_size": 3072},
    "ViT-L/14": {**_VIT, **_LARGE, "patch_size": 14, "intermediate_size": 4096},
}
_BERT = {"model_type": "bert", "vocab_size": 30_522, "intermediate_size": 3072}
_MODERN = {**_BASE, "num_hidden_layers": 22, "vocab_size": 50_368, "intermediate_size": 1152}
TEXT: Mapping[str, dict[str, Any]] = {
    "BERT-base": {**_BERT, **_BASE},
    "ModernBERT-base": {"model_type": "modernbert", **_MODERN},
}
_SMALL = {**_TINY, "intermediate_size": 64}


def vision(settings: Settings, name: str) -> dict[str, Any]:
    """The config.json of an image tower."""
    config = VISION[name]
    small = {**config, **_SMALL, "image_size": 2 * config["patch_size"]}
    return small if settings.small else config


def text(settings: Settings, name: str) -> dict[str, Any]:
    """The config.json of a text tower."""
    return {**TEXT[name], **_SMALL} if settings.small else TEXT[name]


def ours(config: Mapping[str, Any], kind: Kind, dtype: str) -> tuple[Tower, PyTree]:
    """A tower as a run has it, with weights in f32 on the device, without what prepares inputs."""
    module, made = towers.build(dict(config), kind=kind, dtype=dtype)
    tower = Tower(kind=kind, module=module, config=made, prepare=None, spec="", digest="")
    return tower, random(towers.abstract_params(module))


def random(shapes: PyTree) -> PyTree:
    """Arrays of these shapes and shardings: normal of deviation 0.02 about 1 for scales, or 0."""
    leaves, tree = jax.tree.flatten_with_path(shapes)

    def made(i: int, path: Any, x: Any) -> jax.Array:
        middle = 1.0 if "scale" in jax.tree_util.keystr(path[-1:]) else 0.0
        return _filling(x.shape, x.dtype, middle, getattr(x, "sharding", None))(i)

    return jax.tree.unflatten(tree, [made(i, *leaf) for i, leaf in enumerate(leaves)])


@functools.cache
def _filling(shape: tuple[int, ...], dtype: Any, middle: float, sharding: Any) -> Any:
    """The program of `_normal` for such arrays: most leaves have the shape of another."""
    fill = functools.partial(_normal, shape=shape, dtype=dtype, middle=middle)
    return jax.jit(fill, out_shardings=sharding)


def _normal(seed: Any, *, shape: tuple[int, ...], dtype: Any, middle: float) -> jax.Array:
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jax.random.key(seed)
    if not jnp.issubdtype(dtype, jnp.floating):
        return jnp.zeros(shape, dtype)
    return (middle + 0.02 * jax.random.normal(jax.random.key(seed), shape)).astype(dtype)


def torch_model(config: Mapping[str, Any], dtype: Any) -> Any:
    """Transformers' module of a config with random weights, for forward passes."""
    import torch
    import transformers

    own = {key: value for key, value in config.items() if key != "model_type"}
    made = transformers.AutoConfig.for_model(config["model_type"], **own)
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(made, attn_implementation="sdpa").to(dtype).eval()


def flops(config: Mapping[str, Any], lengths: Sequence[int]) -> float:
    """Of the forward passes of a transformer over sequences of these many tokens.

    Products with kernels, and of queries with keys and weights with values; for windows as if every
    token saw all (which is so up to a window of 128 in ModernBERT's captions).
    """
    width, blocks, inner = (
        config[key] for key in ("hidden_size", "num_hidden_layers", "intermediate_size")
    )
    gated = 3 if config["model_type"] == "modernbert" else 2
    kernels = 4 * width**2 + gated * width * inner
    tokens, squares = sum(lengths), sum(n * n for n in lengths)
    made = blocks * (2.0 * kernels * tokens + 4.0 * width * squares)
    if patch := config.get("patch_size"):
        made += 2.0 * 3 * patch**2 * width * (tokens - len(lengths))
    return made


def tokens_of(config: Mapping[str, Any]) -> int:
    """Tokens of an image: patches and CLS."""
    return math.prod([config["image_size"] // config["patch_size"]] * 2) + 1


def has_transformers() -> bool:
    """Whether transformers is there, which has torch's towers."""
    return importlib.util.find_spec("transformers") is not None


def written(config: Mapping[str, Any], path: Path, words: int) -> Path:
    """A directory as transformers saves it, with a tokenizer of so many words."""
    import torch

    from tests.benchmarks import shapes

    return shapes.write(torch_model(config, torch.float32), path, words)
