"""One ArrayRecord file of rows."""

import os

import ml_dtypes
import pytest

from ape_jax.errors import UserError
from ape_jax.features import shards


@pytest.fixture
def rows(rng):
    rows = [rng.normal(size=(n, 5)).astype(ml_dtypes.bfloat16) for n in (3, 1, 70, 2)]
    return [rows[0], None, *rows[1:]]


def test_another_reader_of_the_format_reads_the_rows(rows, tmp_path):
    import grain.python as grain

    shards.write(tmp_path / "a.array_record", rows)
    source = grain.ArrayRecordDataSource(str(tmp_path / "a.array_record"))
    # A bf16 is the upper half of an f32.
    halves = [None if row is None else row.astype("<f4").view("<u4") >> 16 for row in rows]
    expected = [b"" if half is None else half.astype("<u2").tobytes() for half in halves]
    assert [source[i] for i in range(len(source))] == expected


def test_record_of_a_shard_says_what_is_in_it(rows, tmp_path):
    shard = shards.write(tmp_path / "a", rows)
    assert (shard.records, shard.empty, shard.payload) == (5, (1,), 76 * 5 * 2)
    assert shards.Shard.from_json(shard.to_json()) == shard
    shards.verify(tmp_path / "a", shard)
    lengths = [len(record) for record in shards.read(tmp_path / "a", shard)]
    assert lengths == [30, 0, 10, 700, 20]


def test_equal_rows_make_equal_bytes(rows, tmp_path):
    shards.write(tmp_path / "a", rows)
    shards.write(tmp_path / "b", [None if row is None else row.copy() for row in rows])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_flipped_byte_anywhere_is_refused(rows, tmp_path, rng):
    path = tmp_path / "a.array_record"
    shard = shards.write(path, rows)
    content = path.read_bytes()
    places = {0, len(content) - 1, *rng.integers(0, len(content), 60).tolist()}
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=r"a\.array_record is damaged"):
            shards.verify(path, shard)


def test_truncated_or_missing_shard_is_refused(rows, tmp_path):
    path = tmp_path / "a.array_record"
    shard = shards.write(path, rows)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a\.array_record has \d+ bytes instead of"):
        shards.verify(path, shard)
    path.unlink()
    with pytest.raises(UserError, match=r"a\.array_record is missing"):
        shards.verify(path, shard)


def test_full_disk_is_an_error_and_leaves_nothing(rng, tmp_path):
    (tmp_path / f".a.{os.getpid()}.partial").symlink_to("/dev/full")
    rows = [rng.normal(size=(100, 100)) for _ in range(20)]
    with pytest.raises(OSError, match="No space left"):
        shards.write(tmp_path / "a", rows)
    assert not list(tmp_path.iterdir())
