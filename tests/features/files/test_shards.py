"""One file of rows."""

import os

import ml_dtypes
import numpy as np
import pytest

from ape_jax.errors import UserError
from ape_jax.features.files import shards


@pytest.fixture
def rows(rng):
    rows = [rng.normal(size=(n, 5)).astype(ml_dtypes.bfloat16) for n in (3, 1, 70, 2)]
    return [rows[0], None, *rows[1:]]


def test_another_reader_of_the_format_reads_the_rows(rows, tmp_path):
    shard = shards.write(tmp_path / "a.rows", rows, ragged=True)
    # A bf16 is the upper half of an f32.
    words = np.fromfile(tmp_path / "a.rows", "<u2", 76 * 5).astype("<u4") << 16
    expected = np.concatenate([row.astype("<f4") for row in rows if row is not None])
    np.testing.assert_array_equal(words.view("<f4").reshape(76, 5), expected)
    ends = np.fromfile(tmp_path / "a.rows", "<u4", offset=shard.payload)
    assert ends.tolist() == [30, 0, 10, 700, 20]


def test_record_of_a_shard_says_what_is_in_it(rows, tmp_path):
    shard = shards.write(tmp_path / "a", rows, ragged=True)
    assert (shard.records, shard.empty, shard.payload) == (5, (1,), 76 * 5 * 2)
    assert shards.Shard.from_json(shard.to_json()) == shard
    shards.verify(tmp_path / "a", shard)
    assert shards.lengths(tmp_path / "a", shard).tolist() == [30, 0, 10, 700, 20]


def test_rows_of_one_length_are_the_file(rng, tmp_path):
    whole = rng.normal(size=(4, 2, 3)).astype(np.float32)
    shard = shards.write(tmp_path / "a", [whole[0], None, *whole[1:]], ragged=False)
    assert (tmp_path / "a").read_bytes() == whole.tobytes()
    assert (shard.records, shard.empty, shard.size) == (5, (1,), 96)


def test_rows_of_different_lengths_are_no_array(rows, tmp_path):
    with pytest.raises(ValueError, match="no array"):
        shards.write(tmp_path / "a", rows, ragged=False)


def test_equal_rows_make_equal_bytes(rows, tmp_path):
    shards.write(tmp_path / "a", rows, ragged=True)
    shards.write(tmp_path / "b", [None if r is None else r.copy() for r in rows], ragged=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_flipped_byte_anywhere_is_refused(rows, tmp_path, rng):
    path = tmp_path / "a.rows"
    shard = shards.write(path, rows, ragged=True)
    content = path.read_bytes()
    places = {0, len(content) - 1, *rng.integers(0, len(content), 60).tolist()}
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=r"a\.rows is damaged"):
            shards.verify(path, shard)


def test_truncated_or_missing_shard_is_refused(rows, tmp_path):
    path = tmp_path / "a.rows"
    shard = shards.write(path, rows, ragged=True)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a\.rows has \d+ bytes instead of"):
        shards.verify(path, shard)
    path.unlink()
    with pytest.raises(UserError, match=r"a\.rows is missing"):
        shards.verify(path, shard)


def test_full_disk_is_an_error_and_leaves_nothing(rng, tmp_path):
    (tmp_path / f".a.{os.getpid()}.partial").symlink_to("/dev/full")
    rows = [rng.normal(size=(100, 100)) for _ in range(20)]
    with pytest.raises(OSError, match="No space left"):
        shards.write(tmp_path / "a", rows, ragged=False)
    assert not list(tmp_path.iterdir())


def test_lengths_that_are_not_those_of_the_rows_are_refused(rows, tmp_path):
    shard = shards.write(tmp_path / "a", rows, ragged=True)
    content = (tmp_path / "a").read_bytes()
    for wrong in (content[:-4], content[:-4] + b"\1\0\0\0"):
        (tmp_path / "a").write_bytes(wrong)
        with pytest.raises(UserError, match="lengths of its rows"):
            shards.lengths(tmp_path / "a", shard)
