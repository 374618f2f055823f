"""Directories that one process builds and all use."""

import subprocess
import sys
import threading
import time

import pytest

from ape_jax.errors import UserError
from ape_jax.storage import build_once


@pytest.fixture
def make(tmp_path):
    """Builds `x/thing`, which is complete where it holds `done`."""

    def make(build, say=print):
        return build_once.make_once(
            tmp_path / "x" / "thing",
            build,
            lambda directory: (directory / "done").exists(),
            locks=tmp_path / "locks",
            say=say,
        )

    return make


def finish(work):
    (work / "done").touch()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_failed_build_leaves_nothing(make, tmp_path):
    def build(work):
        (work / "half").write_text("half")
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        make(build)
    assert names(tmp_path / "x") == []


def test_leftovers_of_a_killed_process_are_removed_and_named(make, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "x" / f".thing.{dead.pid}.partial").mkdir(parents=True)
    other = tmp_path / "x" / f".other.{dead.pid}.partial"  # Of another directory: not ours.
    other.mkdir()
    said = []
    make(finish, said.append)
    assert names(tmp_path / "x") == [other.name, "thing"]
    assert said == [f"removed .thing.{dead.pid}.partial, left by a process that was killed"]


def test_outdated_directory_is_replaced(make, tmp_path):
    (tmp_path / "x" / "thing").mkdir(parents=True)
    (tmp_path / "x" / "thing" / "stale").touch()
    assert names(make(finish)) == ["done"]
    assert names(tmp_path / "x") == ["thing"]


def test_complete_directory_is_not_built_again(make):
    make(finish)
    assert names(make(pytest.fail)) == ["done"]


def test_only_one_of_many_builds(make):
    builds, said = [], []

    def build(work):
        builds.append(work)
        time.sleep(0.2)
        finish(work)

    threads = [threading.Thread(target=make, args=(build, said.append)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert set(said) <= {"another process is making thing; waiting for it"}
