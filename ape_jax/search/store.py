"""An index on disk: one small file that says all, and the folder it points to.

    INDEX/index.json             the run, the sources, and name and hash of every file; sealed
    INDEX/state-N/items.jsonl    an image a line
    INDEX/state-N/vectors.f32    f32 [n, e], little-endian, no header
    INDEX/state-N/graph.usearch  of large indices

A new state is written into a folder of its own; replacing `index.json` is what makes it count, so
that a reader or a kill at any moment finds the old state or the new one. The hashes find damage;
they are no defence against an index that someone has made to do harm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ape_jax.errors import UserError
from ape_jax.storage import atomic, disk, files, lock, sealed
from ape_jax.terminal.progress import track

ITEMS, VECTORS, GRAPH = "items.jsonl", "vectors.f32", "graph.usearch"
RECORD, _FORMAT, _LOCK = "index.json", 2, ".lock"
_UNSEALED = 1  # Format of the version before.
_FOLDER = re.compile(r"state-(\d{6})")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """An image of an index: `Item` without the image, and the source that it came from."""

    name: str
    stamp: str
    captions: tuple[str, ...]
    source: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """Content of `index.json`.

    Attributes:
      run: absolute path of the run that made the index.
      identity: identity of its model.
      sources: sources of the images, in the order in which they were added.
      count: number of images, n.
      width: width of the vectors, e.
      folder: folder of the files of this state.
      sha256: hash of each file.
    """

    run: str
    identity: Mapping[str, str]
    sources: tuple[str, ...]
    count: int
    width: int
    folder: str
    sha256: Mapping[str, str]


def read_record(path: pathlib.Path, key: str) -> Record:
    """Reads `index.json`.

    Args:
      path: directory of the index.
      key: the flag to name in messages.

    Raises:
      UserError: if there is no index, or it is damaged or of another version.
    """
    file = path / RECORD
    try:
        found = _json(file, f"{key}: {file}")
        if found.pop("format") not in (_FORMAT, _UNSEALED):
            raise UserError(f"{key}: {path} is of another version of ape_jax; make it again")
        record = Record(**found | {"sources": tuple(found["sources"])})
        _check(record)
    except FileNotFoundError:
        raise UserError(f"{key}: {path} holds no index (no {RECORD}); make one first") from None
    except UserError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{key}: {file} cannot be read ({reason}); make it again") from error
    return record


def _json(file: pathlib.Path, name: str) -> dict[str, Any]:
    try:
        found = files.read_json(file, name)
    except UserError as error:
        raise UserError(f"{error}; make it again") from error
    if found["format"] == _UNSEALED:
        return found
    whole = sealed.unseal(found)
    if whole is None:
        raise UserError(f"{name} is damaged; make it again")
    return whole


def _check(record: Record) -> None:
    texts = (record.run, record.folder, *record.sources, *record.identity.values())
    if not all(isinstance(text, str) for text in (*texts, *record.sha256.values())):
        raise ValueError("a text was expected")
    if not (isinstance(record.count, int) and isinstance(record.width, int)):
        raise ValueError("a number was expected")
    if min(record.count, record.width) < 1 or not _FOLDER.fullmatch(record.folder):
        raise ValueError("a size or a folder is wrong")
    if not {ITEMS, VECTORS} <= record.sha256.keys() <= {ITEMS, VECTORS, GRAPH}:
        raise ValueError("the files are others")


def read_files(
    path: pathlib.Path, record: Record, key: str
) -> tuple[list[Entry], Float[np.ndarray, "n e"]]:
    """The images and their vectors, f32 [n, e] mapped from disk; every byte is checked.

    Raises:
      UserError: naming the file that is missing or damaged.
    """
    folder = path / record.folder
    for name, expected in record.sha256.items():
        try:
            found = files.sha256(folder / name, f"{key}: {folder / name}")
        except OSError as error:
            raise UserError(f"{key}: {folder / name} cannot be read ({error.strerror})") from error
        if found != expected:
            raise UserError(f"{key}: {folder / name} is damaged; make the index again")
    shape = (record.count, record.width)
    try:
        with io.TextIOWrapper(files.opened(folder / ITEMS), encoding="utf-8") as lines:
            what = f"reading {path}"
            entries = [_entry(line) for line in track(lines, what, record.count, "images")]
        if len(entries) != record.count:
            raise ValueError("the number of images is another")
        vectors = np.memmap(folder / VECTORS, "<f4", "r")
        return entries, vectors.reshape(shape)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{key}: {path} does not hold what it says ({error}); make it again"
        ) from error


def _entry(line: str) -> Entry:
    name, stamp, captions, source = files.parse_json(line, f"a line of {ITEMS}", kind=list)
    if not all(isinstance(text, str) for text in (name, stamp, source, *captions)):
        raise ValueError("a text was expected")
    return Entry(name, stamp, tuple(captions), source)


def write_entries(file: pathlib.Path, entries: Sequence[Entry]) -> None:
    """Writes `items.jsonl`."""
    with file.open("w", encoding="utf-8") as out:
        for entry in entries:
            out.write(json.dumps(dataclasses.astuple(entry)) + "\n")


@contextlib.contextmanager
def writing(path: pathlib.Path, key: str) -> Iterator[pathlib.Path]:
    """A new folder inside the index to write a state in; removed unless `publish` takes it.

    Raises:
      UserError: where nothing can be written, another process is writing, or the directory is
        someone's own.
    """
    made = not path.exists()
    busy = f"{key}: another process is writing {path}; wait for it"
    with disk.write_errors(f"{key}: {path}"):
        path.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(path, key)
        with lock.exclusive(path / _LOCK, busy):
            _remove_left(path)
            try:
                yield _new_folder(path)
            finally:
                _remove_left(path)
                if made and not (path / RECORD).exists():
                    shutil.rmtree(path, ignore_errors=True)


def publish(path: pathlib.Path, folder: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Makes the files in `folder` the current state of the index."""
    sha256 = {}
    for file in sorted(folder.iterdir()):
        sha256[file.name] = files.sha256(file)
        atomic.sync(file)
    atomic.sync(folder)
    found = {**record, "format": _FORMAT, "folder": folder.name, "sha256": sha256}
    atomic.write_json(path / RECORD, sealed.seal(found))


def _refuse_foreign(path: pathlib.Path, key: str) -> None:
    if (path / RECORD).exists():
        return
    names = {p.name for p in path.iterdir()}
    # What a killed first start has left has our lock; a folder that is merely called so has none.
    record = f".{RECORD}."  # Of one that was being written.
    ours = {n for n in names if n == _LOCK or _FOLDER.fullmatch(n) or n.startswith(record)}
    other = sorted(names - ours if _LOCK in names else names)
    if other:
        raise UserError(
            f"{key}: {path} is no index and holds other things ({other[0]!r}); name a new directory"
        )


def _new_folder(path: pathlib.Path) -> pathlib.Path:
    taken = [int(found[1]) for p in path.iterdir() if (found := _FOLDER.fullmatch(p.name))]
    folder = path / f"state-{max(taken, default=0) + 1:06d}"
    folder.mkdir()
    return folder


def _remove_left(path: pathlib.Path) -> None:
    """Removes the states that `index.json` does not point to: old ones, and half-written ones."""
    try:
        kept = files.read_json(path / RECORD)["folder"]
    except FileNotFoundError:
        kept = None
    except (OSError, ValueError, KeyError, TypeError):
        return  # It is damaged, and someone may want to look at it.
    for folder in path.iterdir():
        if _FOLDER.fullmatch(folder.name) and folder.name != kept:
            shutil.rmtree(folder, ignore_errors=True)
