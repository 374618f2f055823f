"""Files and directories that are there completely or not at all."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from ape_jax.errors import UserError
from ape_jax.storage import atomic

KILLED = """
import os, pathlib, signal, sys
from ape_jax.storage import atomic
path = pathlib.Path(sys.argv[1])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "file":
    atomic.write(path, lambda partial: (partial.write_text("half"), die()))
with atomic.directory(path, replace=True) as partial:
    (partial / "half").write_text("half")
    die()
"""


def kill_while_writing(path, what):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), what], check=False)
    assert done.returncode == -signal.SIGKILL


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_and_json_replace_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    atomic.write_text(path, "old")
    atomic.write_json(path, {"b": "naïve", "a": 1})
    assert path.read_text() == '{\n  "a": 1,\n  "b": "na\\u00efve"\n}\n'
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("failing", ["fill", "fsync", "rename"])
def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "a.json"
    atomic.write_text(path, "old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr(atomic.os, "fsync", fail)
    if failing == "rename":
        monkeypatch.setattr(atomic.Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        atomic.write(path, lambda partial: (partial.write_text("new"), failing != "fill" or fail()))
    assert path.read_text() == "old" and names(tmp_path) == ["a.json"]


def test_file_and_its_name_are_synchronised_before_anybody_sees_it(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(atomic, "sync", lambda path: synced.append((path, names(tmp_path))))
    atomic.write_text(tmp_path / "a", "x")
    partial = f".a.{os.getpid()}.partial"
    assert synced == [(tmp_path / partial, [partial]), (tmp_path, ["a"])]


def test_file_system_that_cannot_synchronise_directories_is_written(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(atomic.os, "fsync", refuse)
    atomic.write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


def test_name_with_the_characters_of_a_pattern(tmp_path):
    path = tmp_path / "[a]*.json"
    kill_while_writing(path, "file")
    atomic.write_text(path, "x")
    assert names(tmp_path) == ["[a]*.json"]


@pytest.mark.parametrize("what", ["file", "directory"])
def test_killed_process_leaves_the_old_one_and_the_next_cleans_up(tmp_path, what):
    path, other = tmp_path / "thing", tmp_path / f".another.{os.getpid()}.partial"
    other.touch()
    if what == "file":
        atomic.write_text(path, "old")
    else:
        with atomic.directory(path) as partial:
            (partial / "old").touch()
    kill_while_writing(path, what)
    assert len(names(tmp_path)) == 3
    if what == "file":
        assert path.read_text() == "old"
        atomic.write_text(path, "new")
        assert path.read_text() == "new"
    else:
        assert names(path) == ["old"]
        with atomic.directory(path, replace=True) as partial:
            (partial / "new").touch()
        assert names(path) == ["new"]
    assert names(tmp_path) == [other.name, "thing"]


def test_what_another_running_process_writes_is_left_alone(tmp_path):
    partial = tmp_path / f".thing.{os.getppid()}.partial"
    partial.touch()
    assert atomic.remove_leftovers(tmp_path / "thing") == []
    assert partial.exists()


def test_directory_is_seen_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "thing"
    with atomic.directory(path) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "file").write_text("x")
        assert not path.exists()
    assert (path / "sub" / "file").read_text() == "x" and names(path.parent) == ["thing"]


def test_failed_directory_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="mine"), atomic.directory(tmp_path / "thing") as partial:
        (partial / "half").touch()
        raise UserError("mine")
    assert names(tmp_path) == []


def test_directory_that_came_into_being_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "thing"
    with pytest.raises(FileExistsError), atomic.directory(path):
        path.mkdir()
        (path / "theirs").touch()
    assert names(tmp_path) == ["thing"] and names(path) == ["theirs"]


def test_leftover_of_our_own_number_is_emptied_first(tmp_path):
    (tmp_path / f".thing.{os.getpid()}.partial").mkdir()
    (tmp_path / f".thing.{os.getpid()}.partial" / "stale").touch()
    with atomic.directory(tmp_path / "thing") as partial:
        (partial / "new").touch()
    assert names(tmp_path / "thing") == ["new"]


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("", "--out: expected a directory"),
        ("there", "there exists; name a directory that does not"),
        ("dangling", "dangling exists"),
        ("file/new/out", "cannot write in .*file; name another"),
    ],
)
def test_new_directory_is_checked_before_any_work(tmp_path, out, said):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(UserError, match=said):
        atomic.check_new(out and str(tmp_path / out), "--out")
    assert atomic.check_new(str(tmp_path / "new" / "out"), "--out") == tmp_path / "new" / "out"


def test_read_only_parent_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=f"--out: cannot write in {tmp_path}"):
        atomic.check_new(str(tmp_path / "out"), "--out")
