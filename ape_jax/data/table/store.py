"""Makes the table of a source, or finds it in the cache folder by the files that it is made of.

    <cache>/pairs/coco.jsonl-0f3a6c2b91de/
        table.arrow      a row an image
        problems.arrow   rows that cannot be used
        record.json      what it was made of: files, sizes, times; hashes of both; written last
        verified.json    which of both need not be read whole again, see `storage.verified`
        digest.json      see `identity`

Small sources are read anew each time, which is as fast, and leave nothing behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ape_jax.data.rows import Ask, FileRows
from ape_jax.data.table import schema, sheet
from ape_jax.data.table.builder import Builder
from ape_jax.data.table.joining import domains
from ape_jax.data.table.joining.groups import groups
from ape_jax.data.table.joining.ids import explicit_ids
from ape_jax.data.table.joining.join import joined
from ape_jax.data.table.joining.keys import image_keys
from ape_jax.data.table.stored import Table
from ape_jax.errors import UserError
from ape_jax.images import walk
from ape_jax.parallel import hosts
from ape_jax.storage import atomic, disk, sealed, verified
from ape_jax.terminal.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa

_VERSION = 7  # Raise it where the same files give another table.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One file, or a spec with a prefix, and how it is read.

    Attributes:
      file: absolute path, or the spec.
      stamp: changes when its content may have: format, size and time; "" where that is not known.
      read: reads it.
      reader: reads its numbered images.
      weight: how often its images come in training; None where no weights are given.
    """

    file: str
    stamp: str
    read: Callable[[Ask], FileRows]
    reader: Callable[[int], bytes] | None = None
    weight: float | None = None


def make_or_find(
    parts: Sequence[Part],
    spec: str,
    *,
    key: str,
    columns: Mapping[str, tuple[str, ...]],
    again: bool = False,
) -> Table:
    """The table of a source.

    Args:
      parts: its files, in order.
      spec: as the user wrote it, for messages.
      key: the config key to name in messages.
      columns: names of columns that the user has chosen.
      again: whether it is made again although it is there, for files whose content has changed and
        whose size and time have not.

    Raises:
      UserError: a file cannot be read, has no columns of images and captions, or no rows.
    """
    lasts = all(part.stamp for part in parts)
    once = [] if lasts else [os.getpid(), time.monotonic_ns()]
    stamp = _digest([_VERSION, dict(columns), [[p.file, p.stamp] for p in parts], once])
    root = disk.cache_dir() / "pairs"
    folder = root / f"{_slug(spec)}-{stamp[:16]}"
    readers = {part.file: part.reader for part in parts if part.reader is not None}
    found = _opened(folder, stamp) if lasts and not again else None
    if found is None:
        found = _made(parts, spec, key, columns, folder, stamp)
        if not lasts:  # What is mapped stays readable.
            shutil.rmtree(folder, ignore_errors=True)
            found = dataclasses.replace(found, folder=None)
    else:
        for line in found.notes:
            hosts.say(line)
    weights = [part.weight for part in parts if part.weight is not None]
    return dataclasses.replace(found, readers=readers, weights=weights)


def _opened(folder: Path, stamp: str) -> Table | None:
    """The table in a folder; None where there is none or it is damaged, so that it is made anew."""
    import pyarrow as pa

    try:
        record = sealed.read(folder / "record.json")
        if record["stamp"] != stamp:
            return None
        if wrong := verified.damage(folder, record["sha256"]):
            hosts.say(f"{folder}: {wrong}; the table of pairs is made anew")
            return None
        return Table(
            batches=sheet.mapped(folder / "table.arrow"),
            problems=sheet.mapped(folder / "problems.arrow"),
            source_rows=int(record["rows"]),
            files=tuple(record["files"]),
            notes=tuple(record["notes"]),
            folder=folder,
        )
    except (UserError, OSError, KeyError, pa.ArrowException):
        return None


def _made(
    parts: Sequence[Part], spec: str, key: str, columns: Mapping[str, tuple[str, ...]],
    folder: Path, stamp: str,
) -> Table:  # fmt: skip
    notes: dict[str, None] = {}

    def note(line: str) -> None:
        if line not in notes:
            notes[line] = None
            hosts.say(line)

    root = common_folder([part.file for part in parts])
    progress = Progress(f"reading {spec}", None, "rows")
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        progress.update(done)

    ask = Ask(key=key, columns=columns, say=note)
    builder = Builder(folder.parent, root, ask, count)
    try:
        for number, part in enumerate(parts):
            try:
                builder.add(number, part.file, part.read(ask))
            except OSError as e:
                raise UserError(f"{key}: {part.file!r} cannot be read ({e.strerror})") from e
        made = _Made(builder, [part.file for part in parts], root, note)
        if not made.count and not made.problems:
            raise UserError(f"{key}: {spec!r} holds no records; write at least one")
        if builder.rows.path is None:
            return made.table(list(made.batches()), tuple(notes))
        _keep(made, tuple(notes), folder, stamp)
        found = _opened(folder, stamp)
        if found is None:
            raise UserError(f"the cache folder {folder} cannot be read back; run again")
        return found
    finally:
        builder.discard()


class _Made:
    """What was read, with the images of its rows found out."""

    def __init__(
        self, builder: Builder, files: Sequence[str], root: str, say: Callable[[str], None]
    ):
        self._rows, self.problems = builder.rows.close(), builder.problems.close()
        self._files, self._root, self.count = tuple(files), root, 0
        self._read = builder.read
        if builder.lists:
            say(f"{builder.lists:,} cells of captions are lists as text; each item is a caption")
        if self._rows:
            self._groups = groups(image_keys(self._rows))
            domains.check(self._rows, self._groups, files)
            self.count = len(self._groups.first)
            self._names = explicit_ids(self._rows, self._groups, files, root)
            if self._names.note:
                say(self._names.note)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The pairs."""
        return joined(self._rows, self._groups, self._names, self._root) if self._rows else iter(())

    def table(self, batches: Sequence[pa.RecordBatch], notes: tuple[str, ...]) -> Table:
        """The table in memory."""
        return Table(
            batches=batches,
            problems=self.problems,
            source_rows=self._read,
            files=self._files,
            notes=notes,
        )

    def record(self, notes: tuple[str, ...]) -> dict[str, Any]:
        """What is on record of the table."""
        return {"files": list(self._files), "notes": list(notes), "rows": self._read}


def _keep(made: _Made, notes: tuple[str, ...], folder: Path, stamp: str) -> None:
    """Writes a table into its folder, whole or not at all."""
    with disk.write_errors(f"the cache folder {folder}", "set APE_JAX_CACHE to another folder"):
        shutil.rmtree(folder, ignore_errors=True)  # Damaged, or of another version.
        with contextlib.suppress(FileExistsError), atomic.directory(folder) as partial:
            sheet.write(partial / "table.arrow", schema.pairs(), made.batches())
            sheet.write(partial / "problems.arrow", schema.problems(), made.problems)
            found = verified.hashes(partial, ("table.arrow", "problems.arrow"))
            record = {**made.record(notes), "stamp": stamp, "sha256": found}
            sealed.write(partial / "record.json", record)


def stamp_of(path: str, name: str) -> str:
    """The stamp of a file that is read by the format of this name."""
    status = os.stat(path)
    return f"{name} {status.st_size} {status.st_mtime_ns}"


def stamp_below(folder: str, key: str = "") -> str:
    """The stamp of all files in a folder and below it: names, sizes and times."""
    total = hashlib.sha256()
    for group in walk.folders(folder):
        for name in group.files:
            path = os.path.join(group.path, name)
            status = os.stat(path)
            known = f"{path}\0{status.st_size} {status.st_mtime_ns}\n"
            total.update(known.encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def common_folder(files: Sequence[str]) -> str:
    """The folder that default ids are relative to: of all files together."""
    folders = {
        file if os.path.isdir(file) else os.path.dirname(file)
        for file in files
        if os.path.isabs(file)
    }
    return os.path.commonpath(folders) if folders else os.getcwd()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _slug(spec: str) -> str:
    last = re.split(r"[/\\]", spec.rstrip("/\\"))[-1]
    return re.sub(r"[^A-Za-z0-9_.]+", "_", last).strip("_.")[:32] or "pairs"
