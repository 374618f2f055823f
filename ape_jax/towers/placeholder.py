"""Towers that encode outside of JAX: the tower's output is the frontier, and there are no weights.

Two kinds of spec name one: `features:WIDTH`, for features that the user has computed
(`precomputed.py`), and `torch:...`, for a frozen model that another library runs (`torch/`). Either
is a `Tower` with a `Placeholder` for a module, which says how wide the features are; the second has
an `OutsideEncoder` as well, which computes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.errors import UserError
from ape_jax.towers.outside import OWN
from ape_jax.towers.tower import Encoded, TowerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutsideConfig(TowerConfig):
    """Config of a tower that encodes outside of JAX.

    Attributes:
      own_width: width of what the pooling "own" gives, where that differs from `width`.
    """

    own_width: int = 0

    def pooled_width(self, pooling: str | None = None) -> int:
        """The width of `Encoded.pooled`."""
        if (pooling or self.pooling) == OWN:
            return self.own_width or self.width
        return super().pooled_width(pooling)


class Placeholder(nn.Module):
    """The module of a tower that encodes outside of JAX; to run it is a mistake."""

    config: TowerConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    unroll: bool = False
    remat: str = "none"

    def embed(self, batch: Mapping[str, Any]) -> NoReturn:
        """Raises UserError."""
        raise UserError(
            f"{self.config.family} is no tower that JAX runs; give features, not raw inputs"
        )

    def run_blocks(self, x: Float[Array, "b t d"], mask: Array) -> Float[Array, "b t d"]:
        """There are none."""
        return x

    def finish(self, x: Float[Array, "b t d"], mask: Array, pooling: str) -> Encoded:
        """Unreachable, since `embed` raises."""
        raise NotImplementedError

    def __call__(self, batch: Mapping[str, Any], pooling: str | None = None) -> Encoded:
        """Raises UserError."""
        return self.embed(batch)
