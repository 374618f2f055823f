"""Taking a work directory for a run or a study: lock, check and config in one transaction.

A directory belongs to the run or study that has left something in it which is worth keeping: a
finished checkpoint, a line of metrics, a summary. The config of a start that ended, or was killed,
before that keeps nobody out.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.parallel import hosts, verdicts
from ape_jax.runs.checkpoints.checkpoint import BEST
from ape_jax.runs.checkpoints.saving import LOCK
from ape_jax.runs.directory import folds_record, layers_record, recorded, workdir
from ape_jax.runs.directory.workdir import Kind
from ape_jax.storage import atomic, disk, files, lock

_FOLDERS = ("checkpoints", BEST)
_RESULTS = ("metrics.jsonl", "summary.json", folds_record.FILE)
# What a start may have made before there was something worth keeping.
_MADE = (*_FOLDERS, *_RESULTS, "tensorboard", "left_out.jsonl", "table.md", layers_record.FILE)
_UNFINISHED = ".orbax-checkpoint-tmp"  # In the name of a checkpoint that is being written.
_CELLS = ("*/seed*", "*/n*/seed*")  # The runs of a study.
_ATTEMPTS = 100  # To lock a directory that other starts make and take away again.


@contextlib.contextmanager
def claimed(path: pathlib.Path, config: Config, kind: Kind = "run") -> Iterator[None]:
    """Holds a work directory for one start of a run or study, and keeps all others out.

    Writes `config.json` (`study.json`), once the directory is locked and known to be free or to be
    of the same config. Keys that do not change the result may differ. If the block ends with an
    error, whatever it is, before it has added something worth keeping, the directory is as it was
    before; one that was not there is gone.

    Args:
      path: the directory, as `workdir.locate` gives it.
      config: the resolved config.
      kind: what it is the config of.

    Raises:
      UserError: nothing can be written, another process works in the directory, or it holds
        something else. On a cluster the first process finds that out for all of them.
    """
    with contextlib.ExitStack() as stack:
        verdicts.by_first(lambda: stack.enter_context(_taken(path, config, kind)))
        yield


@contextlib.contextmanager
def _taken(path: pathlib.Path, config: Config, kind: Kind) -> Iterator[None]:
    record = path / workdir.RECORDS[kind]
    with contextlib.ExitStack() as held, contextlib.ExitStack() as undoing:
        with disk.write_errors(f"--workdir: {path}"):
            start = _hold(path, held, undoing)
        before = work(path, kind)
        _check(path, config, kind, before)
        names = [name for name in _MADE if not os.path.lexists(path / name)]
        undoing.callback(_remove, [path / name for name in names])
        undoing.callback(_put_back, record, files.read_bytes(record) if record.exists() else None)
        try:
            with disk.write_errors(f"--workdir: {path}"):
                values = recorded.recorded(path, config_lib.flatten(config))
                atomic.write_json(record, values)
            yield
        except BaseException:
            # What lies in another directory of that name is not this start's to remove.
            if work(path, kind) != before or not _is_held(path / LOCK, start):
                undoing.pop_all()
            raise
        undoing.pop_all()


def work(path: pathlib.Path, kind: Kind = "run") -> Mapping[str, int]:
    """What a directory holds that is worth keeping, by name, each with a number that grows.

    Args:
      path: a work directory.
      kind: a run, or a study, whose runs count.
    """
    places = [path, *(cell for pattern in _CELLS if kind == "study" for cell in path.glob(pattern))]
    found = {}
    for place in places:
        for folder in _FOLDERS:
            with contextlib.suppress(OSError):
                for entry in (place / folder).iterdir():
                    if _UNFINISHED not in entry.name:
                        found[str(entry.relative_to(path))] = 1
        for name in _RESULTS:
            with contextlib.suppress(OSError):
                if size := (place / name).stat().st_size:
                    found[str((place / name).relative_to(path))] = size
    return found


def _hold(path: pathlib.Path, held: contextlib.ExitStack, undoing: contextlib.ExitStack) -> str:
    """Makes the directory where there is none, and locks it; returns the name of this start."""
    busy = f"--workdir: another process is working in {path}; wait for it or use a new one"
    file = path / LOCK
    is_new = False
    for attempt in range(_ATTEMPTS):
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        undoing.callback(_remove_empty, made)
        is_new = not file.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock.exclusive(file, busy))
            break
        except FileNotFoundError:  # Another start, which was refused, has taken it away again.
            if attempt == _ATTEMPTS - 1:
                raise
    if is_new:
        undoing.callback(_remove, [file])
    held.callback(_forget, file, start := f"{os.getpid()} {secrets.token_hex(8)}")
    file.write_text(start)
    return start


def _check(path: pathlib.Path, config: Config, kind: Kind, before: Mapping[str, int]) -> None:
    """Raises UserError where the directory belongs to something else."""
    record = path / workdir.RECORDS[kind]
    if record.exists():
        workdir.read_config(path, kind, type(config))  # Somebody else's file is never replaced.
        try:
            workdir.require_same(path, config, kind)
        except UserError:
            if before:
                raise
            hosts.say(f"{record} is of a {kind} that left nothing, and is replaced")
    elif before:
        raise UserError(
            f"--workdir: {path} holds {min(before)} but no {record.name} that says what it is of; "
            "put it back or use a new work directory"
        )


def _forget(file: pathlib.Path, start: str) -> None:
    """Empties the lock file, unless it is another start's by now."""
    with contextlib.suppress(OSError):
        if _is_held(file, start):
            file.write_text("")


def _is_held(file: pathlib.Path, start: str) -> bool:
    try:
        return file.read_text(errors="replace") == start
    except OSError:
        return False


def _put_back(record: pathlib.Path, content: bytes | None) -> None:
    with contextlib.suppress(OSError):
        if content is None:
            record.unlink(missing_ok=True)
        elif record.read_bytes() != content:
            atomic.write(record, lambda partial: partial.write_bytes(content))


def _remove(made: Iterable[pathlib.Path]) -> None:
    for path in made:
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _remove_empty(folders: Iterable[pathlib.Path]) -> None:
    """Removes folders, the innermost first, as far as nothing is in them."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
