"""From a job to features: on disk, where they are read by rows, or in memory only."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from ape_jax.errors import UserError
from ape_jax.features.cache import Cache
from ape_jax.features.engines.engine import Engine, ThisProcess, Work
from ape_jax.features.files import shards
from ape_jax.features.jobs import CaptionJob, ImageJob, Job
from ape_jax.features.ragged import RaggedTokens
from ape_jax.parallel.hosts import say
from ape_jax.storage import sealed
from ape_jax.storage.rows.access import Rows
from ape_jax.storage.rows.mapped import MappedRows, Part, aligned
from ape_jax.terminal.progress import Progress

THIS_PROCESS = ThisProcess()

Images = tuple[Float[Rows, "m V ..."], Bool[np.ndarray, "n"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The place where features are kept.

    Attributes:
      root: the directory of all caches, None for memory only.
      missing: "error" where features that are not on disk may not be encoded.
    """

    root: Path | None
    missing: str = "encode"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filled:
    """A cache that is complete, and what it took this time.

    Attributes:
      cache: the cache.
      encoded: views or captions that were encoded now, by this process.
      resumed: shards that were there already.
      seconds: all in all.
    """

    cache: Cache
    encoded: int
    resumed: int
    seconds: float

    @property
    def seen(self) -> Bool[np.ndarray, "n"]:
        """Mask of the items that have features."""
        return seen_in(self.cache)


def seen_in(cache: Cache) -> Bool[np.ndarray, "n"]:
    """Mask of the items that have features in a complete cache."""
    seen = np.ones(cache.count, bool)
    for block, shard in zip(cache.blocks, cache.shards):
        seen[np.asarray(shard.empty, int) + block.start] = False
    return seen


def fill(job: Work, place: Place, engine: Engine = THIS_PROCESS) -> Filled:
    """Finds the cache of a job's features, and encodes what is missing of it.

    Args:
      job: what is encoded.
      place: where features are kept, on disk.
      engine: what encodes. By default processes share the shards; each encodes its own on its own
        devices.

    Raises:
      UserError: where the cache is damaged, cannot be written or may not be made; where nothing can
        be encoded.
    """
    start = time.monotonic()
    cache = Cache(place.root, job.fingerprint, job.count, job.per_shard)
    encoded, resumed = 0, len(cache.blocks)
    with cache.filling(place.missing, say) as has_work:
        if has_work:
            encoded, resumed = _encode_missing(cache, job, engine)
    filled = Filled(cache=cache, encoded=encoded, resumed=resumed, seconds=time.monotonic() - start)
    _require_some(job, bool(filled.seen.any()))
    return filled


def images(job: ImageJob, place: Place) -> Images:
    """Features [m, V, ...] of the m images that can be read, and which of all n these are.

    On disk they are read by rows; every byte was verified since it was written.

    Raises:
      UserError: as `fill`.
    """
    if place.root is None:
        return _images_in_memory(job, place)
    filled = fill(job, place)
    filled.cache.verify_changed(job.what)
    return MappedRows(_parts(filled.cache, job), job.shape, job.dtype), filled.seen


def captions(job: CaptionJob, place: Place) -> RaggedTokens:
    """Token encodings of all captions, as `images` gives features.

    Raises:
      UserError: as `fill`.
    """
    if place.root is None:
        return _captions_in_memory(job, place)
    cache = fill(job, place).cache
    cache.verify_changed(job.what)
    offsets = np.concatenate([[0], np.cumsum(lengths_in(cache, job))])
    return RaggedTokens(MappedRows(_parts(cache, job), (job.width,), job.dtype), offsets)


def lengths_in(cache: Cache, job: CaptionJob) -> Int64[np.ndarray, " n"]:
    """Encodings of each caption in a complete cache."""
    token, lengths = job.width * job.dtype.itemsize, np.zeros(job.count, np.int64)
    for k, block in enumerate(cache.blocks):
        found = shards.lengths(cache.file(k), cache.shards[k])
        lengths[block.start : block.stop] = found // token
    return lengths


def _parts(cache: Cache, job: Job) -> list[Part]:
    """The files of a cache with how many rows, images or tokens, each holds.

    Raises:
      UserError: where they are no rows of this job.
    """
    is_images = isinstance(job, ImageJob)
    size = (math.prod(job.shape) if is_images else job.width) * job.dtype.itemsize
    for k, shard in enumerate(cache.shards):
        full = (shard.records - len(shard.empty)) * size
        if shard.payload != full if is_images else shard.payload % size:
            raise sealed.damaged(cache.file(k), f"does not hold rows of {size} bytes")
    return [Part(cache.file(k), shard.payload // size) for k, shard in enumerate(cache.shards)]


def _encode_missing(cache: Cache, job: Work, engine: Engine) -> tuple[int, int]:
    """Writes this process's missing shards; how much was encoded and how many were there."""
    found, blocks = cache.finished(), cache.blocks
    mine = engine.share(len(blocks))
    cache.verify(job.what, {k: shard for k, shard in found.items() if k in mine})
    missing = [block for k, block in enumerate(blocks) if k not in found]
    need = job.need(missing)
    cache.require_space(int(1.01 * need) + shards.overhead(len(missing)), job.what)
    units = sum(map(len, missing)) * job.per_item
    there = f" ({len(found)} of {len(blocks)} shards are there)" if found else ""
    say(f"{job.what}: {units:,} {job.unit} -> {need / 1e6:,.1f} MB in {cache.path}{there}")
    todo = [k for k in mine if k not in found]
    count = _Count(job, [blocks[k] for k in mine], [blocks[k] for k in todo])
    engine.write(job, cache, todo, count.add)
    return count.encoded, len(found)


class _Count:
    """Progress over blocks, of which some were done before."""

    def __init__(self, job: Work, blocks: list[range], todo: list[range]):
        total = sum(map(len, blocks)) * job.per_item
        self._before = total - sum(map(len, todo)) * job.per_item
        self._progress = Progress(job.what, total, job.unit, done=self._before, compiles=bool(todo))
        self.encoded = 0

    def add(self, count: int) -> None:
        self.encoded += count
        self._progress.update(self._before + self.encoded)


def _images_in_memory(job: ImageJob, place: Place) -> Images:
    features, seen, at = aligned((job.count, *job.shape), job.dtype), np.zeros(job.count, bool), 0
    for i, row in _rows_in_memory(job, place):
        if row is not None:
            features[at], seen[i] = row, True
            at += 1
    _require_some(job, at > 0)
    return features[:at], seen


def _captions_in_memory(job: CaptionJob, place: Place) -> RaggedTokens:
    room = job.need([range(job.count)]) // (job.width * job.dtype.itemsize)
    flat, offsets = aligned((room, job.width), job.dtype), np.zeros(job.count + 1, np.int64)
    for i, row in _rows_in_memory(job, place):
        offsets[i + 1] = offsets[i] + len(row)
        flat[offsets[i] : offsets[i + 1]] = row
    return RaggedTokens(flat[: offsets[-1]], offsets)


def _rows_in_memory(job: Job, place: Place) -> Iterator[tuple[int, Any]]:
    """Every item's features, in order; the same bits that a cache would hold.

    In a cluster all processes encode everything together, since none can read another's memory.
    """
    if place.missing == "error":
        raise UserError(
            "cache.missing: 'error' wants features that are on disk, but cache.dir is 'none'; name "
            "a directory or write 'encode'"
        )
    starts = range(0, job.count, job.per_shard)
    blocks = [range(i, min(i + job.per_shard, job.count)) for i in starts]
    count = _Count(job, blocks, blocks)
    for block in blocks:
        yield from zip(block, job.encode(block, count.add))


def _require_some(job: Work, some: bool) -> None:
    if job.count and not some:
        raise UserError(f"data.pairs: none of the {job.count} {job.what} can be read")
