"""Lists all icons of the plain splits, and finds those of a numbered partition.

The list is made once, beside the icons: a partition is then opened without reading a drawing. What
a partition leaves out as nearly equal is found once for each.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ape_jax.demo import cache, numbered
from ape_jax.demo.icons import pairs, partitions
from ape_jax.demo.icons.plan import SPLITS
from ape_jax.demo.packages import manifest
from ape_jax.storage import atomic, files

# Raise one when what it holds changes: everybody's copy becomes outdated.
_FORMAT, _PARTITION_FORMAT = "1", "1"
_SIZE, _PARTITION_SIZE = 40_000_000, 2_000_000
_TEXTS = ("id", "caption", "concept", "set")
_BLOCK = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing(partitions.Drawings):
    """All drawings, a list a column, in the order of the plain splits.

    Attributes:
      caption: as training reads it.
      set: the key of the icon's set.
      number: index of the record in its plain split.
      size: bytes of the PNG.
    """

    caption: Sequence[str]
    set: Sequence[str]
    number: Sequence[int]
    size: Sequence[int]


def read() -> Listing:
    """Reads the list; the first call makes it, and the icons where they are not there.

    Raises:
      UserError: no npm, no network, or a cache that cannot be written.
    """
    return _listing(_prepare())


def find(part: numbered.Part) -> list[int]:
    """Finds the rows of the list that a part of a partition holds.

    Raises:
      UserError: there is no such slice, and as `read`.
    """
    found = read()
    sides = _sides(part.number, _prepare_partition(part.number))
    rows = [i for i, side in enumerate(sides) if side == part.side]
    rows.sort(key=lambda i: partitions.order(found.id[i]))
    return list(numbered.cut(rows, part))


def _prepare() -> Path:
    return cache.make_once(
        "icons_listing", _build, lambda path: manifest.matches(path, _version(_FORMAT))
    )


def _prepare_partition(number: int) -> Path:
    return cache.make_once(
        f"icons_partitions/{number}",
        functools.partial(_build_partition, number),
        lambda path: manifest.matches(path, _version(_PARTITION_FORMAT)),
    )


def _version(own: str) -> str:
    """That of the list and of the icons that it lists."""
    return f"{own} of icons {pairs.FORMAT}"


@functools.lru_cache(maxsize=1)
def _listing(directory: Path) -> Listing:
    return Listing(**files.read_json(directory / "icons.json"))


@functools.lru_cache(maxsize=4)
def _sides(number: int, directory: Path) -> list[str]:
    return files.read_json(directory / "sides.json")["sides"]


def _build(work: Path) -> None:
    import numpy as np

    from ape_jax.demo.icons import render

    builder = pairs.open_builder()
    cache.require_space(_SIZE, "The list of the icons needs")
    started = time.monotonic()
    cache.say("icons: listing them")
    names = [field.name for field in dataclasses.fields(Listing)]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    thumbnails = []
    for split in SPLITS:
        for i, record in enumerate(_records(builder, split)):
            row = {name: record[name].decode() for name in _TEXTS}
            row |= {"split": split, "maker": record["author"].decode()}
            row |= {"number": i, "size": len(record["image"])}
            for name in names:
                columns[name].append(row[name])
            thumbnails.append(render.thumbnail(bytes(record["image"])))
    pixels = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(len(thumbnails), -1)
    np.save(work / "thumbnails.npy", pixels)
    atomic.write_json(work / "icons.json", columns)
    total = manifest.write(work, _version(_FORMAT))
    cache.say(f"icons: list, {total / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")


def _build_partition(number: int, work: Path) -> None:
    import numpy as np

    from ape_jax.demo.icons import alike

    directory = _prepare()
    cache.require_space(_PARTITION_SIZE, "A partition of the icons needs")
    sides = np.array(partitions.sides(_listing(directory), number))
    pixels = np.load(directory / "thumbnails.npy", allow_pickle=False)
    train = alike.standardised(pixels[sides == "train"])
    others = np.flatnonzero((sides != "train") & (sides != ""))
    leaks = alike.closest(alike.standardised(pixels[others]), train) > alike.CORRELATION
    sides[others[leaks]] = ""
    atomic.write_json(work / "sides.json", {"sides": sides.tolist()})
    manifest.write(work, _version(_PARTITION_FORMAT))
    counts = ", ".join(f"{side}@{number} {int((sides == side).sum())}" for side in SPLITS)
    cache.say(f"icons: {counts}; {int(leaks.sum())} nearly equal to one of training left out")


def _records(builder: Any, split: str) -> Iterator[Any]:
    import tensorflow_datasets as tfds

    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    for start in range(0, len(source), _BLOCK):
        yield from source.__getitems__(list(range(start, min(start + _BLOCK, len(source)))))
