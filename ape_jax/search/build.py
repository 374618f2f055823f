"""Builds and extends an index; only new and changed images are encoded."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping

import numpy as np

from ape_jax.data.image_loader import Skipped
from ape_jax.errors import UserError, install
from ape_jax.parallel.hosts import say
from ape_jax.search import graph as graph_lib
from ape_jax.search import store
from ape_jax.search.encoding import Block, Engine, ImageEncoder, ThisProcess
from ape_jax.search.index import Index, open_index
from ape_jax.search.items import Item, Source
from ape_jax.terminal.progress import Progress

_CHUNK = 4096  # Images per block of vectors in memory.

Tick = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Added:
    """Counts of images after a source was added.

    Attributes:
      total: images in the index now, of all sources.
      encoded: images that were encoded now.
      kept: images of this source that were in the index already.
      gone: images that were in the index and that this source no longer has.
      unreadable: a sentence on each image that was skipped.
      notes: phrases that say what else was skipped.
    """

    total: int
    encoded: int
    kept: int
    gone: int
    unreadable: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.total} images", f"{self.encoded} encoded", f"{self.kept} kept"]
        parts += [f"{self.gone} gone"] if self.gone else []
        parts += [f"{len(self.unreadable)} that cannot be read"] if self.unreadable else []
        return ", ".join([*parts, *self.notes])


def add(
    path: str | os.PathLike[str],
    source: Source,
    encoder: ImageEncoder | Engine,
    *,
    run: str,
    identity: Mapping[str, str],
    key: str = "--out",
    tick: Tick | None = None,
    graph_from: int = graph_lib.FROM,
) -> Added:
    """Makes an index, or brings one up to date with a source.

    Args:
      path: the index; nothing is left there of one that fails, and an old one stays as it was.
      source: images; those of other sources stay.
      encoder: the model, or an engine that has it elsewhere.
      run: where it comes from.
      identity: its own.
      key: the flag to name in messages.
      tick: callback(encoded, total).
      graph_from: number of vectors from which on a graph is built.

    Raises:
      UserError: an index of another model, a directory that is no index or cannot be written, or
        where not one image can be read.
    """
    directory = pathlib.Path(path).expanduser().absolute()
    old = open_index(directory, identity, key=key) if (directory / store.RECORD).exists() else None
    changes, skipped = _changes(old, source), Skipped()
    count = len(changes.stays)
    if not _is_up_to_date(old, source, changes):
        with store.writing(directory, key) as folder:
            engine = encoder if isinstance(encoder, Engine) else ThisProcess(encoder)
            entries, width = _write(folder, changes, old, engine, source.spec, skipped, tick)
            if not (count := len(entries)):
                raise UserError(
                    f"{key}: no image of {source.spec} can be read ({skipped.reasons[0]})"
                )
            store.write_entries(folder / store.ITEMS, entries)
            _write_graph(folder, old, changes, count, width, graph_from)
            sources = dict.fromkeys([*(old.record.sources if old else ()), source.spec])
            record = {"run": run, "identity": dict(identity), "sources": list(sources)}
            store.publish(directory, folder, {**record, "count": count, "width": width})
    return Added(
        total=count,
        encoded=len(changes.new) - len(skipped),
        kept=changes.found,
        gone=changes.gone,
        unreadable=skipped.reasons,
        notes=source.notes,
    )


@dataclasses.dataclass(frozen=True)
class _Changes:
    """Entries of the old state to keep, with their rows, and items to encode."""

    stays: list[tuple[int, store.Entry]]
    new: list[Item]
    found: int
    gone: int


def _changes(old: Index | None, source: Source) -> _Changes:
    wanted = {item.name: item for item in source.items}
    stays, found, gone = [], 0, 0
    for row, entry in enumerate(old.entries if old else ()):
        item = wanted.get(entry.name)
        if item is None and entry.source == source.spec:
            gone += 1
        elif item is None:
            stays.append((row, entry))
        elif item.stamp == entry.stamp:
            del wanted[entry.name]
            found += 1
            captions = item.captions or entry.captions
            stays.append((row, dataclasses.replace(entry, captions=captions)))
    return _Changes(stays, list(wanted.values()), found, gone)


def _is_up_to_date(old: Index | None, source: Source, changes: _Changes) -> bool:
    if old is None or source.spec not in old.record.sources:
        return False
    return not changes.new and [entry for _, entry in changes.stays] == list(old.entries)


def _write(
    folder: pathlib.Path,
    changes: _Changes,
    old: Index | None,
    engine: Engine,
    spec: str,
    skipped: Skipped,
    tick: Tick | None,
) -> tuple[list[store.Entry], int]:
    """Writes the vectors; gives their entries and width, and fills `skipped`."""
    entries, rows = [entry for _, entry in changes.stays], [row for row, _ in changes.stays]
    width = old.vectors.shape[1] if old else 0
    total, count = len(changes.new), 0
    progress = Progress("encoding images", total, "images", compiles=total > 0)
    blocks = [changes.new[start : start + _CHUNK] for start in range(0, total, _CHUNK)]

    def report(more: int) -> None:
        nonlocal count
        count += more
        progress.update(count)
        if tick is not None:
            tick(count, total)

    def take(number: int, block: Block) -> None:
        nonlocal width
        block.vectors.tofile(file)
        width = block.vectors.shape[1] if block.readable.any() else width
        for index, problem in block.skipped.items():
            skipped.add(number * _CHUNK + index, problem)
        entries.extend(
            store.Entry(item.name, item.stamp, item.captions, spec)
            for item, ok in zip(blocks[number], block.readable)
            if ok
        )

    with (folder / store.VECTORS).open("wb") as file:
        for start in range(0, len(rows), _CHUNK):
            old.vectors[rows[start : start + _CHUNK]].tofile(file)
        engine.encode(blocks, take, report)
    return entries, width


def _write_graph(
    folder: pathlib.Path,
    old: Index | None,
    changes: _Changes,
    count: int,
    width: int,
    graph_from: int,
) -> None:
    if count < graph_from:
        return
    if not graph_lib.is_installed():
        say(
            f"usearch is not installed, so that each query will be compared with all {count} "
            f"images; run {install('index')}, and index again, for a graph"
        )
        return
    vectors = np.memmap(folder / store.VECTORS, "<f4", "r", shape=(count, width))
    start = None
    if old is not None and store.GRAPH in old.record.sha256 and len(changes.stays) == len(old):
        file = old.path / old.record.folder / store.GRAPH
        start = graph_lib.read(file, writable=True)
    graph_lib.build(vectors, folder / store.GRAPH, start)
