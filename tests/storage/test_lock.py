"""Exclusive locks: one holder, and none after the holder's death."""

import os
import signal
import subprocess
import sys
import threading

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
