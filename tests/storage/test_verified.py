"""Notes of what was verified: they spare reading, and never hide a change."""

import os

import pytest

from ape_jax.storage import verified


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(verified, "_SETTLED", 0)
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"12345678")
    named = {path: f"sum of {path.name}" for path in paths}
    return tmp_path, named


def note(folder, named):
    verified.note(folder, named, verified.states(named))


def changed(folder, named):
    return [path.name for path in verified.changed(folder, verified.states(named))]


def test_what_was_verified_and_left_alone_is_not_read_again(files):
    assert changed(*files) == ["a", "b"]
    note(*files)
    assert changed(*files) == []


def rewritten(path):
    path.write_bytes(b"12345679")


def dated_back(path):
    stat = path.stat()
    path.write_bytes(b"12345679")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replaced(path):
    path.with_name("c").write_bytes(b"12345678")
    path.with_name("c").replace(path)


@pytest.mark.parametrize("change", [rewritten, dated_back, replaced, os.unlink])
def test_any_change_of_a_file_is_seen(files, change):
    note(*files)
    change(files[0] / "a")
    assert changed(*files) == ["a"]


def test_another_checksum_on_record_is_seen(files):
    folder, named = files
    note(folder, named)
    assert changed(folder, {**named, folder / "b": "another"}) == ["b"]


def test_file_that_changed_while_it_was_read_is_not_noted(files):
    folder, named = files
    found = verified.states(named)
    rewritten(folder / "b")
    verified.note(folder, named, found)
    assert changed(folder, named) == ["b"]


def test_file_that_was_written_just_now_is_not_noted(files, monkeypatch):
    monkeypatch.setattr(verified, "_SETTLED", 10**12)
    note(*files)
    assert changed(*files) == ["a", "b"]


def test_of_a_damaged_note_nothing_follows(files):
    folder, named = files
    note(folder, named)
    path = folder / verified.NAME
    content = path.read_bytes()
    for damaged in (content.replace(b'"a"', b'"c"'), b"", b"[]", content[:-3]):
        path.write_bytes(damaged)
        assert changed(folder, named) == ["a", "b"]


@pytest.fixture
def large(files, monkeypatch):
    """The files, taken for large ones; and which of them were read."""
    monkeypatch.setattr(verified, "_ALWAYS", 4)
    folder, read = files[0], []
    real = verified.files.sha256

    def sha256(path, name=""):
        read.append(path.name)
        return real(path, name)

    expected = verified.hashes(folder, ("a", "b"))
    monkeypatch.setattr(verified.files, "sha256", sha256)
    return folder, expected, read


def test_a_large_file_is_read_once_and_again_when_it_has_changed(large):
    folder, expected, read = large
    assert verified.damage(folder, expected) is None and read == ["a", "b"]
    assert verified.damage(folder, expected) is None and read == ["a", "b"]
    (folder / "b").touch()
    assert verified.damage(folder, expected) is None and read == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [(rewritten, "damaged"), (dated_back, "damaged"), (os.unlink, "missing")],
)
@pytest.mark.parametrize("is_noted", [False, True])
def test_damage_of_a_large_file_is_named(large, change, wrong, is_noted):
    folder, expected, _ = large
    if is_noted:
        verified.damage(folder, expected)
    change(folder / "b")
    assert verified.damage(folder, expected) == f"b is {wrong}"


def test_a_small_file_is_always_read_and_so_is_every_one_without_notes(large, monkeypatch):
    folder, expected, read = large
    verified.damage(folder, expected)
    verified.damage(folder, expected, None)
    monkeypatch.setattr(verified, "_ALWAYS", 8)
    verified.damage(folder, expected)
    assert read == ["a", "b"] * 3
