"""The cache's directory: found, resumed, refused by name; with rows that cost nothing."""

import dataclasses
import fcntl
import os
import shutil
import threading

import numpy as np
import pytest

from ape_jax.errors import UserError
from ape_jax.features import extract, jobs
from ape_jax.features.files import shards
from ape_jax.features.fingerprint import Fingerprint
from ape_jax.storage import verified

F32 = np.dtype(np.float32)


class Stop(BaseException):
    """As if the process had been killed."""


@dataclasses.dataclass(frozen=True)
class Job(jobs.ImageJob):
    """Rows [2, 3] that follow from their number; every encoded block is noted."""

    parts: dict = dataclasses.field(default_factory=lambda: {"layer": "-1", "pooling": "cls"})
    count: int = 10
    stop: int = -1
    encoded: list = dataclasses.field(default_factory=list)
    what: str = "toy images"
    pairs: None = None
    frozen: None = None
    dtype: np.dtype = F32
    per_item, per_shard, shape = 2, 4, (2, 3)

    @property
    def fingerprint(self):
        return Fingerprint(kind="images", tower="demo:toy", pairs="p.jsonl", parts=self.parts)

    def need(self, blocks):
        return sum(map(len, blocks)) * 24

    def encode(self, block, report):
        if block.start == self.stop:
            raise Stop
        self.encoded.append(block.start)
        report(2 * len(block))
        return [None if i == 5 else np.full((2, 3), i, np.float32) for i in block]


@pytest.fixture
def place(tmp_path):
    return extract.Place(root=tmp_path / "features")


@pytest.fixture
def made(place):
    """A finished cache's directory."""
    return extract.fill(Job(), place).cache.path


def contents(path):
    return {p.name: p.read_bytes() for p in path.iterdir()}


def test_rows_come_back_without_those_that_have_none(place):
    features, seen = extract.images(Job(), place)
    assert np.flatnonzero(~seen).tolist() == [5]
    assert features[:][:, 1, 2].tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_cache_is_found_again_and_nothing_is_encoded(place, made):
    job = Job()
    files = [".lock", "cache.json", *(f"shard-0000{k}.rows" for k in range(3)), "shards.json"]
    assert sorted(contents(made)) == files
    features, _ = extract.images(job, place)
    assert job.encoded == [] and len(features) == 9
    assert sorted(contents(made)) == [*files, "verified.json"]


def test_cache_is_found_under_the_name_that_another_spec_gave_it(place, made):
    made.rename(made.with_name(f"mine-{made.name[-12:]}"))
    job = Job()
    extract.images(job, place)
    assert job.encoded == []


def test_memory_only_gives_the_same_and_writes_nothing(place, made, tmp_path):
    job = Job()
    features, seen = extract.images(job, extract.Place(root=None))
    expected = extract.images(Job(), place)
    np.testing.assert_array_equal(features, expected[0])
    np.testing.assert_array_equal(seen, expected[1])
    assert job.encoded == [0, 4, 8]


def test_stopped_extraction_goes_on_where_it_stopped_and_ends_with_the_same_bytes(
    place, made, tmp_path, capsys
):
    other = extract.Place(root=tmp_path / "other")
    with pytest.raises(Stop):
        extract.fill(Job(stop=8), other)
    job = Job()
    filled = extract.fill(job, other)
    assert job.encoded == [8] and (filled.encoded, filled.resumed) == (4, 2)
    assert "(2 of 3 shards are there)" in capsys.readouterr().err
    assert contents(filled.cache.path) == contents(made)


def test_finished_shard_that_was_damaged_before_resuming_is_refused(place):
    with pytest.raises(Stop):
        extract.fill(Job(stop=8), place)
    path = extract.Cache(place.root, Job().fingerprint, 10, 4).file(1)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"shard-00001\.rows is damaged"):
        extract.fill(Job(), place)


def test_flipped_byte_in_any_file_is_refused_by_name(place, made, rng):
    for path in sorted(made.iterdir()):
        content = path.read_bytes()
        for at in rng.integers(0, max(len(content), 1), 12) if content else ():
            flipped = bytearray(content)
            flipped[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            with pytest.raises(UserError, match=rf"cache: \S+/{path.name} .*delete the directory"):
                extract.images(Job(), place)
        path.write_bytes(content)
    extract.images(Job(), place)


def test_bytes_are_read_again_only_where_a_file_changed(place, made, monkeypatch):
    read, verify = [], shards.verify
    monkeypatch.setattr(verified, "_SETTLED", 0)
    monkeypatch.setattr(shards, "verify", lambda path, s: read.append(path.name) or verify(path, s))
    extract.images(Job(), place)
    assert len(read) == 3
    extract.images(Job(), place)
    assert len(read) == 3
    path = made / "shard-00001.rows"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(UserError, match=r"shard-00001\.rows is damaged"):
        extract.images(Job(), place)
    path.write_bytes(content)
    extract.images(Job(), place)
    assert read[3:] == ["shard-00001.rows"] * 2


def swap(path):
    a, b = path / "shard-00000.rows", path / "shard-00001.rows"
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)


def edit(path):
    text = (path / "cache.json").read_text().replace('"layer": "-1"', '"layer": "-2"')
    (path / "cache.json").write_text(text)


DAMAGE = {
    "truncated": lambda p: (p / "shard-00001.rows").write_bytes(b"abc"),
    "deleted": lambda p: (p / "shard-00002.rows").unlink(),
    "swapped": swap,
    "edited": edit,
    "nameless": lambda p: (p / "cache.json").unlink(),
    "a directory": lambda p: [(p / "shards.json").unlink(), (p / "shards.json").mkdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_cache_is_refused_by_name(place, made, damage):
    DAMAGE[damage](made)
    with pytest.raises(UserError, match=rf"cache: {made}/(shard|cache).*delete the directory"):
        extract.images(Job(), place)


def test_files_of_another_cache_are_refused(place, made):
    other = extract.fill(Job(parts={"layer": "2", "pooling": "cls"}), place).cache.path
    for name in ("cache.json", "shards.json"):
        content = (made / name).read_bytes()
        (made / name).write_bytes((other / name).read_bytes())
        with pytest.raises(UserError, match=f"{name} belongs to another cache"):
            extract.images(Job(), place)
        (made / name).write_bytes(content)


def test_cache_of_other_settings_is_named_with_what_differs(place, made, capsys):
    capsys.readouterr()
    job = Job(parts={"layer": "9", "pooling": "cls", "views": "4"})
    extract.fill(job, place)
    said = capsys.readouterr().err
    assert f"not used: {made}, which differs in layer: -1 -> 9; views: nothing -> 4\n" in said
    assert job.encoded == [0, 4, 8]
    extract.fill(Job(parts={"layer": "9", "pooling": "cls", "views": "4"}), place)
    assert "not used" not in capsys.readouterr().err


def test_missing_error_encodes_nothing_and_names_what_there_is(place, made):
    strict = dataclasses.replace(place, missing="error")
    assert len(extract.images(Job(), strict)[0]) == 9
    job = Job(parts={"layer": "9", "pooling": "cls"})
    with pytest.raises(UserError, match=rf"cache.missing: .*not used: {made}.* layer: -1 -> 9"):
        extract.images(job, strict)
    assert job.encoded == []
    with pytest.raises(UserError, match=r"cache.missing: .*cache.dir is 'none'"):
        extract.images(job, extract.Place(root=None, missing="error"))


def test_missing_error_says_that_a_cache_is_not_finished(place):
    with pytest.raises(Stop):
        extract.fill(Job(stop=8), place)
    with pytest.raises(UserError, match=r"cache.missing: .* is not finished"):
        extract.images(Job(), dataclasses.replace(place, missing="error"))


@pytest.mark.parametrize("at", [0, 4, 8])
def test_a_directory_that_is_removed_under_an_extraction_is_filled_by_the_next(place, tmp_path, at):
    class Removed(Job):
        def encode(self, block, report):
            found = super().encode(block, report)
            if block.start == at:
                shutil.rmtree(extract.Cache(place.root, self.fingerprint, 10, 4).path)
            return found

    if at:  # What was there before is gone.
        with pytest.raises(UserError, match=r"removed from .* run again"):
            extract.fill(Removed(), place)
    else:
        extract.fill(Removed(), place)
    path = extract.fill(Job(), place).cache.path
    whole = extract.fill(Job(), extract.Place(root=tmp_path / "other")).cache.path
    assert contents(path) | {".lock": b""} == contents(whole)  # It went as well.
    extract.images(Job(), place)


def test_too_little_space_is_said_before_anything_is_encoded(place, monkeypatch):
    usage = shutil.disk_usage(place.root.parent)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    job = Job()
    with pytest.raises(UserError, match=r"cache.dir: toy images need 1 MB but only 0 MB are free"):
        extract.fill(job, place)
    assert job.encoded == []


def test_disk_that_fills_up_later_is_one_sentence_and_loses_nothing(place):
    class Full(Job):
        def encode(self, block, report):
            if block.start == 8:
                target = extract.Cache(place.root, self.fingerprint, 10, 4).file(2)
                target.with_name(f".{target.name}.{os.getpid()}.partial").symlink_to("/dev/full")
                return [np.ones((100, 100)) for _ in range(20)]
            return super().encode(block, report)

    with pytest.raises(UserError, match=r"cache.dir: .*No space left on device.*run again"):
        extract.fill(Full(), place)
    job = Job()
    extract.fill(job, place)
    assert job.encoded == [8]


def test_directory_that_cannot_be_written_names_the_key(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cache.dir: .* cannot be written \(Not a directory\)"):
        extract.fill(Job(), extract.Place(root=tmp_path / "file" / "features"))


def test_second_extraction_waits_for_the_first_and_finds_its_result(place, capsys):
    path = extract.Cache(place.root, Job().fingerprint, 10, 4).path
    path.mkdir(parents=True)
    job = Job()
    with (path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=extract.fill, args=(job, place))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive() and job.encoded == []
    waiting.join(20)
    assert job.encoded == [0, 4, 8]
    assert f"another process is filling {path}; waiting" in capsys.readouterr().err


def test_nothing_that_can_be_read_is_an_error(place):
    class Blank(Job):
        def encode(self, block, report):
            return [None for _ in block]

    for where in (place, place, extract.Place(root=None)):
        with pytest.raises(UserError, match=r"none of the 10 toy images can be read"):
            extract.images(Blank(), where)
