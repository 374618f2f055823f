"""Exclusive locks: one holder, and none after the holder's death."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ape_jax.errors import UserError
from ape_jax.storage import lock

HOLDER = """
import pathlib, sys, time
from ape_jax.storage import lock
with lock.exclusive(pathlib.Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_second_process_is_told_so(tmp_path, holder):
    with pytest.raises(UserError, match=r"^busy here$"):
        with lock.exclusive(tmp_path / ".lock", "busy here"):
            pass


def test_lock_of_a_killed_process_is_free(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with lock.exclusive(tmp_path / ".lock", "busy"):
        pass


def test_waiting_is_said_once_and_ends_with_the_holder(tmp_path, holder):
    said = []

    def take():
        with lock.exclusive(tmp_path / ".lock", "busy", said.append):
            said.append("taken")

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(0.3)
    assert said == ["busy"]
    holder.kill()
    thread.join(20)
    assert said == ["busy", "taken"]


def test_lock_ends_with_the_block_and_the_file_stays(tmp_path):
    for _ in range(2):
        with lock.exclusive(tmp_path / ".lock", "busy"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_error_in_the_block_is_not_taken_for_the_locks(tmp_path):
    with pytest.raises(BlockingIOError), lock.exclusive(tmp_path / ".lock", "busy"):
        raise BlockingIOError


@pytest.fixture
def make(tmp_path):
    """Builds `x/thing`, which is complete where it holds `done`."""

    def make(build, say=print):
        return lock.make_once(
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
