"""Placeholder tower for a side whose features are precomputed: `features:WIDTH`.

It has no parameters and encodes nothing; it says how wide the features are, so that a head can be
put on them as on any other tower's output.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from ape_jax.config.outside import PREFIX
from ape_jax.errors import UserError
from ape_jax.towers.placeholder import Placeholder
from ape_jax.towers.tower import Kind, Tower, TowerConfig

FAMILY = "features"
_MAX_WIDTH = 2**20


@dataclasses.dataclass(frozen=True)
class VectorPrepare:
    """Checks precomputed vectors in the place of decoding or tokenising.

    Attributes:
      kind: "image" or "text".
      width: d.
    """

    kind: Kind
    width: int

    @property
    def transform(self) -> VectorPrepare:
        """Itself: there is nothing more to it."""
        return self

    def __call__(self, vectors: Sequence[Any]) -> list[Float32[np.ndarray, "_ _"]]:
        """Vectors [d], or token encodings [t, d] for a text, as f32 [t, d] each.

        Raises:
          UserError: for anything else than finite numbers of this width.
        """
        return [self._check(vector) for vector in vectors]

    def _check(self, vector: Any) -> Float32[np.ndarray, "t d"]:
        try:
            array = np.atleast_2d(np.asarray(vector, np.float32))
        except (TypeError, ValueError):
            array = np.zeros((0, 0), np.float32)
        fits = array.ndim == 2 and len(array) and array.shape[1] == self.width
        if not fits or (self.kind == "image" and len(array) != 1):
            shape = "[t, d] or [d]" if self.kind == "text" else "[d]"
            found = f"an array {list(np.shape(vector))}" if hasattr(vector, "shape") else vector
            raise UserError(
                f"the {self.kind} side takes vectors {shape} with d={self.width}, found "
                f"{str(found)[:80]}"
            )
        if not np.isfinite(array).all():
            raise UserError(f"a vector given for the {self.kind} side is not finite")
        return array


def read(spec: str, kind: Kind | None) -> Tower:
    """The placeholder tower that `features:WIDTH` names.

    Raises:
      UserError: no width, or a side that is not named.
    """
    match = re.fullmatch(rf"{PREFIX}([1-9]\d{{0,6}})", spec)
    if match is None or int(match[1]) > _MAX_WIDTH:
        raise UserError(
            f"tower {spec!r}: write features:WIDTH with the width of your vectors, from 1 to "
            f"{_MAX_WIDTH}"
        )
    if kind is None:
        raise UserError(f"tower {spec!r}: say which side it is for, kind='image' or 'text'")
    config = TowerConfig(
        kind=kind,
        family=FAMILY,
        width=int(match[1]),
        depth=0,
        heads=1,
        mlp_width=1,
        pooling="mean",
        activation="gelu",
        norm_eps=1e-6,
    )
    return Tower(
        kind=kind,
        module=Placeholder(config=config),
        config=config,
        prepare=VectorPrepare(kind, config.width),
        spec=spec,
        digest=spec,
    )
