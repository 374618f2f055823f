"""Pairs whose images, texts or both are precomputed vectors."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64

from ape_jax.data.pairs import Pair, Pairs, table_of


@dataclasses.dataclass(frozen=True)
class Tokens:
    """One or more vectors for each caption: `flat[offsets[i]:offsets[i + 1]]` for caption i.

    Attributes:
      flat: f32 [S, d].
      offsets: i64 [m + 1].
    """

    flat: Float32[np.ndarray, "S d"]
    offsets: Int64[np.ndarray, " bounds"]

    def __len__(self) -> int:
        return len(self.offsets) - 1


class VectorPairs(Pairs):
    """Pairs with precomputed vectors.

    Attributes:
      image: f32 [n, V, d].
      text: of every caption in the order of the records, None where captions are words.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        spec: str,
        image: Float32[np.ndarray, "n V d"],
        text: Tokens | None,
    ):
        super().__init__(table_of(pairs), spec)
        self.image, self.text = image, text

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of ids, captions and vectors, in order."""
        total = hashlib.sha256(b"ape_jax vectors 1")
        for pair in self:
            for part in (pair.id, *pair.captions):
                total.update(len(part.encode()).to_bytes(8, "little") + part.encode())
        arrays = [self.image] + ([] if self.text is None else [self.text.flat, self.text.offsets])
        for array in arrays:
            total.update(repr((array.shape, array.dtype.str)).encode())
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()
