"""Captions as one vector each, pooled as they are read."""

import numpy as np

from ape_jax.features import ragged
from ape_jax.training.captions import pooled
from ape_jax.training.captions.pooled import PooledRows


def test_pooled_captions_are_read_by_rows(rng, monkeypatch):
    tokens = ragged.from_rows([rng.normal(size=(t, 3)).astype(np.float32) for t in (3, 1, 4, 9, 2)])
    rows, whole = PooledRows(tokens, "cls+mean"), tokens.pool("cls+mean")
    monkeypatch.setattr(pooled, "_TOKENS", 5)
    assert (rows.shape, len(rows), rows.nbytes) == ((5, 6), 5, whole.nbytes)
    for index in (slice(None), slice(1, 4), np.array([4, 0, 0, 3]), np.array([], int)):
        np.testing.assert_array_equal(rows[index], whole[index])
