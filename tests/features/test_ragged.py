"""Captions without padding."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from ape_jax.align.packing import Packed
from ape_jax.config.poolings import MODES
from ape_jax.features import ragged
from ape_jax.storage.rows.mapped import MappedRows, Part


@pytest.fixture
def rows(rng):
    return [rng.normal(size=(n, 5)).astype(np.float32) for n in (3, 1, 7)]


def test_padded_rows_hold_the_tokens_and_zeros(rows):
    tokens, mask = ragged.from_rows(rows).padded(np.array([2, 0, 2]), 8)
    np.testing.assert_array_equal(mask.sum(1), [7, 3, 7])
    np.testing.assert_array_equal(tokens[1, :3], rows[0])
    assert not tokens[~mask].any()


def test_a_row_that_does_not_fit_is_an_error(rows):
    with pytest.raises(ValueError, match="7 tokens"):
        ragged.from_rows(rows).padded(np.array([2]), 6)


def test_mean_is_the_mean_of_each_row(rows):
    expected = np.stack([row.mean(axis=0) for row in rows])
    np.testing.assert_allclose(ragged.from_rows(rows).mean(), expected, rtol=1e-6)


def test_longest_and_length(rows):
    tokens = ragged.from_rows(rows)
    assert (len(tokens), tokens.longest) == (3, 7)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_packed_groups_hold_the_rows_end_to_end(rows, dtype):
    tokens = ragged.from_rows([row.astype(dtype) for row in rows])
    packed, lengths = tokens.packed(np.array([2, 0, 1, 1]), groups=2, size=12)
    assert packed.dtype == dtype and packed.shape == (2, 12, 5) and lengths.dtype == np.int32
    np.testing.assert_array_equal(lengths, [[7, 3], [1, 1]])
    np.testing.assert_array_equal(packed[0, :10], np.concatenate([rows[2], rows[0]]).astype(dtype))
    np.testing.assert_array_equal(packed[1, :2], np.concatenate([rows[1], rows[1]]).astype(dtype))
    assert not packed[0, 10:].any() and not packed[1, 2:].any()


def test_a_group_that_does_not_fit_is_an_error(rows):
    tokens = ragged.from_rows(rows)
    assert tokens.largest_group(np.array([2, 0, 1, 1]), 2) == 10
    with pytest.raises(ValueError, match="10 tokens"):
        tokens.packed(np.array([2, 0, 1, 1]), groups=2, size=9)


def test_buckets_are_few_and_waste_little():
    sizes = np.array([ragged.bucket(n) for n in range(1, 40_000)])
    totals = np.arange(1, 40_000)
    assert (sizes >= totals).all() and not (sizes % 8).any() and (np.diff(sizes) >= 0).all()
    assert ((sizes - totals) / sizes)[128:].max() < 1 / 16
    assert len(np.unique(sizes)) <= 16 * 12
    assert [ragged.bucket(s) for s in np.unique(sizes)] == np.unique(sizes).tolist()


def test_mean_of_stored_bfloat16_is_taken_in_float32(rng):
    rows = [rng.normal(size=(n, 5)).astype(ml_dtypes.bfloat16) for n in [300, 2] * 3000]
    expected = np.stack([row.astype(np.float32).mean(axis=0) for row in rows])
    mean = ragged.from_rows(rows).mean()
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, expected, atol=1e-6)


@pytest.mark.parametrize("pooling", [*MODES, "max+weightedmean"])
def test_rows_are_pooled_as_packed_captions_are(rng, pooling):
    rows = ragged.from_rows([rng.normal(size=(n, 5)).astype(np.float32) for n in (3, 1, 6, 2)])
    packed = Packed(*map(jnp.asarray, rows.packed(np.arange(4), 1, 16)))
    np.testing.assert_allclose(rows.pool(pooling), packed.pool(pooling), atol=1e-6)


def test_an_unknown_pooling_of_rows_is_an_error(rng):
    with pytest.raises(ValueError, match="'head'"):
        ragged.from_rows([np.ones((1, 2), np.float32)]).pool("head")


@pytest.fixture
def on_disk(rng, tmp_path):
    """Captions in memory, and the same ones in two files."""
    rows = [rng.normal(size=(n, 5)).astype(ml_dtypes.bfloat16) for n in rng.integers(1, 9, 60)]
    memory = ragged.from_rows(rows)
    cut = int(memory.offsets[23])
    (tmp_path / "a").write_bytes(memory.flat[:cut].tobytes())
    (tmp_path / "b").write_bytes(memory.flat[cut:].tobytes())
    parts = [Part(tmp_path / "a", cut), Part(tmp_path / "b", len(memory.flat) - cut)]
    files = MappedRows(parts, (5,), memory.flat.dtype)
    return memory, ragged.RaggedTokens(files, memory.offsets)


def test_rows_of_files_are_packed_padded_and_chosen_as_those_in_memory(on_disk, rng):
    memory, files = on_disk
    chosen = rng.integers(0, 60, 24)
    for a, b in ((memory, files), (memory.rows(chosen[::-1]), files.rows(chosen[::-1]))):
        rows = chosen % len(a)
        for ours, theirs in zip(a.packed(rows, 4, 56), b.packed(rows, 4, 56), strict=True):
            assert ours.tobytes() == theirs.tobytes()
        for ours, theirs in zip(a.padded(rows, 8), b.padded(rows, 8), strict=True):
            assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("pooling", [*MODES, "cls+mean"])
def test_rows_of_files_are_pooled_as_those_in_memory(on_disk, pooling, monkeypatch):
    memory, files = on_disk
    whole = memory.pool(pooling)
    assert files.pool(pooling).tobytes() == whole.tobytes()
    monkeypatch.setattr(ragged, "_BLOCK", 7)
    assert files.pool(pooling, 20, 43).tobytes() == whole[20:43].tobytes()
