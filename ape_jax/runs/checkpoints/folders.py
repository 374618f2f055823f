"""The folder of checkpoints: what is in it, what is put aside, and what is on the disk for good."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib

import jax

from ape_jax.parallel import hosts
from ape_jax.storage import atomic

_TEMPORARY = ".orbax-checkpoint-tmp"
_SMALL = 2**20  # Bytes; the arrays' files are synchronised by who writes them.
_NO_DAMAGE = (
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.EINTR),
)
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "Cannot allocate memory")
_NO_ACCESS = ("PERMISSION_DENIED", "Permission denied", "Too many open files")


def no_damage(error: BaseException | None) -> str:
    """Says why a checkpoint could not be read, where that says nothing of its bytes; else "".

    Args:
      error: that reading it raised.
    """
    while error is not None:
        text = str(error)
        if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
            return "there is too little memory"
        if isinstance(error, OSError) and error.errno in _NO_DAMAGE:
            return error.strerror or type(error).__name__
        if found := next((sign for sign in _NO_ACCESS if sign in text), ""):
            return found
        error = error.__cause__ or error.__context__
    return ""


def put_aside(checkpoint: pathlib.Path) -> pathlib.Path:
    """Moves a damaged checkpoint out of the way of the next save of its step.

    Of several processes each must call it; the first moves it.

    Args:
      checkpoint: `DIR/checkpoints/STEP`.

    Returns:
      Where it is now: `DIR/checkpoints.damaged/STEP`.
    """
    folder = checkpoint.parent.with_name(f"{checkpoint.parent.name}.damaged")
    aside = folder / checkpoint.name
    if hosts.is_first():
        number = 2
        while os.path.lexists(aside):  # It was damaged once before.
            aside, number = folder / f"{checkpoint.name}-{number}", number + 1
        folder.mkdir(exist_ok=True)
        checkpoint.rename(aside)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("ape_jax damaged checkpoint")
    return aside


def say_strangers(folder: pathlib.Path) -> None:
    """Says which folders have no step for a name: one that was renamed would go unseen."""
    if not (hosts.is_first() and folder.is_dir()):
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir() and not entry.name.isdigit() and _TEMPORARY not in entry.name:
            hosts.say(f"{entry.path!r} is not used: the name of a checkpoint is its step")


def sync(folder: pathlib.Path) -> None:
    """Waits until the small files of a checkpoint that is being written are on the disk.

    Called before it gets its name. Files of arrays are there already then; JSON and the names in
    its folders are not, and a power cut could leave a named checkpoint without them.

    Args:
      folder: of the checkpoints.
    """
    if not hosts.is_first():
        return
    for written in folder.glob(f"*{_TEMPORARY}*"):
        for inner, _, names in os.walk(written, topdown=False):
            for file in (pathlib.Path(inner, name) for name in names):
                with contextlib.suppress(FileNotFoundError):  # Renamed meanwhile.
                    if file.stat().st_size <= _SMALL:
                        atomic.sync(file)
            with contextlib.suppress(FileNotFoundError):
                atomic.sync(pathlib.Path(inner))


def sync_names(folder: pathlib.Path) -> None:
    """Waits until the names of finished checkpoints are on the disk."""
    if hosts.is_first():
        atomic.sync(folder)
