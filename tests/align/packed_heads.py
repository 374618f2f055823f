"""Every text head, and captions that are packed and padded.

For the tests of packing, and for the checks on accelerators (tests/accelerator).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ape_jax.align import heads
from ape_jax.align.packing import Packed
from ape_jax.features import ragged
from ape_jax.towers.tower import TowerConfig

WIDTH, VOCABULARY = 12, 10
LENGTHS = [3, 1, 7, 2, 1, 5, 4, 6]


def tower(width: int) -> TowerConfig:
    """The config of a text tower of this width."""
    return TowerConfig(
        kind="text",
        family="bert",
        width=width,
        depth=2,
        heads=2,
        mlp_width=2 * width,
        pooling="mean",
        activation="gelu",
        norm_eps=1e-6,
    )


TOWER = tower(WIDTH)


def heads_on(
    width: int, features: int = 8, hidden: int = 16, dtype: Any = jnp.float32
) -> dict[str, heads.Head]:
    """Every head of captions, by a name of its own.

    Args:
      width: of the tokens.
      features: the joint width.
      hidden: of an MLP.
      dtype: of its products.
    """
    own = tower(width)
    linear = heads.Linear(features, dtype)
    pooled = {
        "mean": heads.OnPooledText(linear, own),
        "cls": heads.OnPooledText(linear, own, "cls"),
        "last": heads.OnPooledText(linear, own, "last"),
        "identity": heads.OnPooledText(heads.Identity(), own, "cls"),
        "pooled mlp": heads.OnPooledText(
            heads.PooledMLP(features, 3, hidden, dtype=dtype), own, "last"
        ),
        "residual mlp": heads.OnPooledText(heads.ResidualMLP(features, 2, dtype=dtype), own),
        "star mlp": heads.OnPooledText(heads.StarMLP(features, 3, dtype=dtype), own),
    }
    made: dict[str, heads.Head] = {
        "mlp": heads.TokenMLP(features, own, depth=3, width=hidden, dtype=dtype),
        "one layer": heads.TokenMLP(features, own, depth=1, dtype=dtype),
        **pooled,
        "token pool": heads.TextTokenPool(features, own, dtype=dtype),
        "attention pool": heads.TextAttentionPool(features, own, queries=3, heads=2, dtype=dtype),
        "transformer": heads.Transformer(features, own, depth=2, dtype=dtype),
        "lookup": heads.Lookup(features, own, VOCABULARY),
    }
    made["sum"] = heads.Summed({name: made[name] for name in ("mean", "mlp", "lookup")})
    return made


def both_forms(
    lengths: Sequence[int],
    groups: int = 1,
    spare: int = 5,
    width: int = WIDTH,
    dtype: Any = np.float32,
    length: int = 0,
) -> tuple[Packed, tuple[Any, Any, Any]]:
    """The same captions packed, and padded with their mask and ids."""
    rng = np.random.default_rng(sum(lengths))
    flat = ragged.from_rows([rng.normal(size=(n, width)).astype(dtype) for n in lengths])
    ids = rng.integers(0, VOCABULARY, len(flat.flat)).astype(np.int32)
    frame = length or flat.with_padded_length().padded_length
    flat = dataclasses.replace(flat, ids=ids, padded_length=frame)
    rows = np.arange(len(lengths))
    size = flat.largest_group(rows, groups) + spare
    packed = Packed(**{k: jnp.asarray(v) for k, v in flat.batch(rows, groups, size).items()})
    padded = flat.padded_batch(rows, length or max(lengths) + 2)
    return packed, (padded["tokens"], padded["mask"], padded["ids"])


def padded_input(padded: tuple[Any, Any, Any]) -> heads.TextInput:
    """Padded captions as a text head takes them."""
    return heads.TextInput(**dict(zip(("tokens", "mask", "ids"), padded, strict=True)))


def gradient(head: heads.Head) -> Callable[[Any, heads.TextInput], tuple[Any, jax.Array]]:
    """A function of parameters and captions: a gradient of a head, and what the head gives."""

    def loss(params: Any, text: heads.TextInput) -> tuple[jax.Array, jax.Array]:
        z = head.apply(params, text)
        return (heads.normalize(z) * jnp.arange(1.0, 1.0 + z.shape[1])).sum(), z

    return jax.grad(loss, has_aux=True)
