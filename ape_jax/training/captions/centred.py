"""Captions as one vector each, with the mean of their language taken off."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32

from ape_jax.config import poolings
from ape_jax.features.dataset import Dataset
from ape_jax.training.captions.pooled import PooledRows, shifts


class CentredRows:
    """As `PooledRows`, a row for each text in each of its languages, whose mean is taken off.

    Args:
      dataset: the pairs, with the row of each caption in the table.
      means: the table, f32 [r, d].
      pooling: a mode, or several joined by "+".

    Attributes:
      index: i64 [m], the row of each caption.
    """

    def __init__(self, dataset: Dataset, means: Any, pooling: str):
        tokens, language = dataset.tokens, dataset.language_rows
        if tokens is None or language is None:
            raise ValueError("captions are encoded and have languages")
        self._tokens, self._means = tokens, np.asarray(means, np.float32)
        self._rows, self._parts = PooledRows(tokens, pooling), poolings.parts(pooling)
        keys = dataset.captions.text_index * len(self._means) + language
        distinct, self.index = np.unique(keys, return_inverse=True)
        self._text, self._language = distinct // len(self._means), distinct % len(self._means)
        self.shape: tuple[int, ...] = (len(distinct), self._rows.shape[1])
        self.dtype = self._rows.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all vectors."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | np.ndarray) -> Float32[np.ndarray, "b e"]:
        """The vectors of some rows."""
        texts, means = self._text[index], self._means[self._language[index]]
        moved = [means * shifts(self._tokens, texts, x)[:, None] for x in self._parts]
        return (self._rows[texts] - np.concatenate(moved, axis=1)).astype(np.float32)
