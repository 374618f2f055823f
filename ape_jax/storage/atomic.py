"""Files and directories that appear under their name only when they are complete and on the disk.

Both are written beside the target as `.NAME.PID.partial`, synchronised, and renamed. If the process
fails, the partial one is removed; if it is killed, the next process that writes the same target
removes it. A target is written by one thread of a process at a time.

Errors are the operating system's; `disk.write_errors` turns them into a sentence.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError

_pending: set[Path] = set()  # What this process is writing.
# Some network file systems cannot synchronise a directory; there the rename has to be enough.
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Writes a file, or replaces it; on any error the old file stays.

    Args:
      path: the file, in an existing directory.
      fill: writes the file at the path that it is given; what it returns is not used.

    Raises:
      OSError: the file cannot be written; and whatever `fill` raises.
    """
    remove_leftovers(path)
    partial = _partial(path)
    _pending.add(partial)
    try:
        fill(partial)
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
        _pending.discard(partial)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file as `write` does."""
    write(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes indented JSON, with sorted keys, as `write` does."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


@contextlib.contextmanager
def directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Creates a directory atomically.

    Args:
      path: the directory. Its parents are made.
      replace: whether a directory of that name is replaced.

    Yields:
      An empty directory beside `path`, which is renamed to `path` if the block ends without an
      error, and removed otherwise.

    Raises:
      OSError: the directory cannot be written, or `path` exists and is not to be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    partial = _partial(path)
    shutil.rmtree(partial, ignore_errors=True)  # Of a killed process with our number.
    partial.mkdir()
    _pending.add(partial)
    try:
        yield partial
        for folder, _, names in os.walk(partial, topdown=False):
            for file in (folder, *(os.path.join(folder, name) for name in names)):
                if not os.path.islink(file):
                    sync(Path(file))
        if replace and path.exists():
            outdated = partial.with_suffix(".outdated")
            path.rename(outdated)
            partial.rename(path)
            shutil.rmtree(outdated, ignore_errors=True)
        elif os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        else:
            partial.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        _pending.discard(partial)


def remove_pending() -> None:
    """Removes what this process is writing, where it is about to end without coming back to it."""
    for partial in list(_pending):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                partial.unlink()


def check_new(out: str, key: str, kind: str = "directory") -> Path:
    """The absolute path of a directory, or a file where `kind` says so, that is to be created.

    Raises:
      UserError: `out` is empty, exists already, or lies where nothing can be written.
    """
    if not out:
        raise UserError(f"{key}: expected a {kind} to write, found none")
    path = Path(out).expanduser().absolute()
    if os.path.lexists(path):
        raise UserError(f"{key}: {path} exists; name a {kind} that does not, or remove it")
    parent = next(p for p in path.parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{key}: cannot write in {parent}; name another directory")
    return path


def remove_leftovers(path: Path) -> list[str]:
    """Removes what killed processes left while they wrote `path`; returns the names."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.(?:partial|outdated)")
    removed = []
    for entry in os.scandir(path.parent):
        if (match := pattern.fullmatch(entry.name)) and not _is_running(int(match[1])):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
            removed.append(entry.name)
    return removed


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a directory's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(handle)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # Another user's.
        return True
    return True
