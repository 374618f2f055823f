"""Caches of the version before: opened once more, their bits as they were."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from ape_jax.errors import UserError
from ape_jax.features import extract, jobs
from ape_jax.features.files import array_records
from ape_jax.features.fingerprint import Fingerprint
from ape_jax.storage import sealed

F32 = np.dtype(np.float32)


class Stop(BaseException):
    """As if the process had been killed."""


@dataclasses.dataclass(frozen=True)
class Images(jobs.ImageJob):
    """Rows [2, 3] that follow from their number; every encoded block is noted."""

    count: int = 10
    encoded: list = dataclasses.field(default_factory=list)
    what: str = "toy images"
    pairs: None = None
    frozen: None = None
    dtype: np.dtype = F32
    per_item, per_shard, shape = 2, 4, (2, 3)
    fingerprint = Fingerprint(kind="images", tower="demo:toy", pairs="p.jsonl", parts={})

    def need(self, blocks):
        return 0

    def encode(self, block, report):
        self.encoded.append(block.start)
        return [None if i == 5 else np.full((2, 3), i, np.float32) for i in block]


@dataclasses.dataclass(frozen=True)
class Captions(jobs.CaptionJob):
    """Rows [i % 3 + 1, 5] that follow from their number."""

    count: int = 10
    encoded: list = dataclasses.field(default_factory=list)
    what: str = "toy captions"
    texts: tuple = ()
    spec: str = "p"
    frozen: None = None
    dtype: np.dtype = F32
    per_shard, width = 4, 5
    fingerprint = Fingerprint(kind="captions", tower="demo:toy", pairs="p.jsonl", parts={})

    def need(self, blocks):
        return 0

    def encode(self, block, report):
        self.encoded.append(block.start)
        return [np.full((i % 3 + 1, 5), i, np.float32) for i in block]


def read(job, place):
    """All that a job's cache gives, as bytes."""
    if isinstance(job, Images):
        features, seen = extract.images(job, place)
        return features[:].tobytes(), seen.tolist()
    tokens = extract.captions(job, place)
    return tokens.flat[:].tobytes(), tokens.offsets.tolist()


def age(path, job, shards=range(3), *, whole=True):
    """Puts a finished cache into the files of the version before."""
    from array_record.python import array_record_module

    records = {}
    for k in range(3):
        (path / f"shard-{k:05d}.rows").unlink()
        if k not in shards:
            continue
        block = range(4 * k, min(4 * k + 4, job.count))
        rows = [b"" if row is None else row.tobytes() for row in job.encode(block, print)]
        old = path / f"shard-{k:05d}.array_record"
        writer = array_record_module.ArrayRecordWriter(str(old), "group_size:1,uncompressed")
        for row in rows:
            writer.write(row)
        writer.close()
        content = old.read_bytes()
        records[k] = {
            "records": len(rows),
            "payload": sum(map(len, rows)),
            "empty": [i for i, row in enumerate(rows) if not row],
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    cache = job.fingerprint.digest
    (path / "shards.json").unlink()
    if whole:
        sealed.write(path / "shards.json", {"cache": cache, "shards": list(records.values())})
    else:
        for k, record in records.items():
            value = {"cache": cache, "number": k, "shard": record}
            sealed.write(path / f"shard-{k:05d}.json", value)


def contents(path):
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name != "verified.json"}


@pytest.fixture
def place(tmp_path):
    return extract.Place(root=tmp_path / "features")


@pytest.mark.parametrize("kind", [Images, Captions])
@pytest.mark.parametrize("missing", ["encode", "error"])
def test_finished_cache_is_converted_once_and_gives_the_same_bits(place, kind, missing, capsys):
    expected = read(kind(), place)
    path = next(place.root.iterdir())
    fresh = contents(path)
    age(path, kind())
    job = kind()
    capsys.readouterr()
    for times in (1, 0):
        assert read(job, dataclasses.replace(place, missing=missing)) == expected
        said = f"{path}: 3 shards of an earlier version are put, once, into files"
        assert capsys.readouterr().err.count(said) == times
    assert job.encoded == [] and contents(path) == fresh


@pytest.mark.parametrize("kind", [Images, Captions])
def test_unfinished_cache_goes_on_with_the_shards_that_there_are(place, kind):
    expected = read(kind(), place)
    path = next(place.root.iterdir())
    fresh = contents(path)
    age(path, kind(), [0, 2], whole=False)
    job = kind()
    assert read(job, place) == expected
    assert job.encoded == [4] and contents(path) == fresh


def test_conversion_that_was_killed_goes_on_where_it_was(place, monkeypatch):
    expected = read(Images(), place)
    path = next(place.root.iterdir())
    fresh, convert = contents(path), array_records.convert
    age(path, Images())

    def stop_at_the_last(old, *args, **kwargs):
        if "00002" in old.name:
            raise Stop
        return convert(old, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(array_records, "convert", stop_at_the_last)
        with pytest.raises(Stop):
            read(Images(), place)
    assert json.loads((path / "shards.json").read_text()).get("layout") is None
    assert (path / "shard-00002.array_record").exists()
    job = Images()
    assert read(job, place) == expected
    assert job.encoded == [] and contents(path) == fresh


def test_damaged_shard_of_the_version_before_is_refused_by_name(place):
    read(Images(), place)
    path = next(place.root.iterdir())
    age(path, Images())
    old = path / "shard-00001.array_record"
    old.write_bytes(old.read_bytes()[:-1] + b"x")
    for _ in range(2):
        with pytest.raises(UserError, match=r"shard-00001\.array_record is damaged"):
            read(Images(), place)
