"""The cache folder: where it is, one builder at a time, all or nothing."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from ape_jax.errors import UserError
from ape_jax.storage import build_once as cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def is_made(directory: Path) -> bool:
    return (directory / "done").exists()


def test_environment_names_the_folder(folder):
    assert cache.cache_dir() == folder


def test_default_respects_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("APE_JAX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / "ape_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache.cache_dir() == Path.home() / ".cache" / "ape_jax"


def test_failed_build_leaves_nothing(folder):
    def build(work: Path) -> None:
        (work / "half").write_text("half")
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        cache.make_once(folder / "x" / "thing", build, is_made)
    assert list((folder / "x").iterdir()) == []


def test_leftovers_of_a_killed_run_are_removed(folder, capsys):
    (folder / "x" / ".thing.12345.partial").mkdir(parents=True)
    other = folder / "x" / ".other.12345.partial"  # another asset: not ours to remove
    other.mkdir()
    cache.make_once(folder / "x" / "thing", lambda work: (work / "done").touch(), is_made)
    assert sorted(path.name for path in (folder / "x").iterdir()) == [other.name, "thing"]
    assert "removing .thing.12345.partial" in capsys.readouterr().err


def test_outdated_directory_is_replaced(folder):
    old = folder / "x" / "thing"
    old.mkdir(parents=True)
    (old / "stale").touch()
    cache.make_once(old, lambda work: (work / "done").touch(), is_made)
    assert [path.name for path in old.iterdir()] == ["done"]
    assert [path.name for path in old.parent.iterdir()] == ["thing"]


def test_only_one_of_many_builds(folder):
    builds = []

    def build(work: Path) -> None:
        builds.append(work)
        time.sleep(0.2)
        (work / "done").touch()

    def run() -> None:
        cache.make_once(folder / "x" / "thing", build, is_made)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1


def test_unwritable_cache_is_a_user_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("APE_JAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot be written .* set APE_JAX_CACHE"):
        cache.make_once(tmp_path / "file" / "cache" / "thing", lambda work: None, is_made)


def test_full_disk_is_a_user_error(folder):
    def build(work: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device\); free some space"):
        cache.make_once(folder / "thing", build, is_made)


def test_too_little_space_is_said_before_any_download(folder, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1_000_000)
    )
    with pytest.raises(UserError, match="needs 5 MB but only 1 MB are free"):
        cache.require_space(5_000_000, "It")
