"""Loads images as batches for a tower: through Grain, with threads, exactly repeatable.

A batch is a function of (pairs, seed, step). Threads, prefetching, restarts and the number of
processes change when it is made, and never its content.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer

from ape_jax.data.options import OnError, Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.sampling import (
    Order,
    WeightedOrder,
    check_batch,
    generator,
    order_of,
    positions,
)
from ape_jax.data.table.problems import Problem
from ape_jax.errors import UserError
from ape_jax.images.augment import Augment
from ape_jax.images.decode import ImageError, ImageRef, load_image
from ape_jax.images.transforms import AsDecoded, Transform

_WHITE = (255, 255, 255)
# Views of one image follow each other; small images wait decoded for the next view.
_DECODED_PIXELS = 2**22
# How far image_batches may run ahead of its reader, in bytes of prepared images.
_AHEAD_BYTES = 2**28


class Skipped:
    """The images that `on_error="skip"` skipped; several threads may add to it.

    Args:
      pairs: where the records are pairs, whose other problems count too.
      reading: says how many may be left out; needs `pairs`.
      name: what to call the records in messages.
    """

    def __init__(
        self, pairs: Pairs | None = None, reading: Reading | None = None, name: str = "data.pairs"
    ):
        self._found: dict[int, Problem] = {}
        self._lock = threading.Lock()
        self._pairs, self._reading, self._name = pairs, reading, name
        self._room = math.inf
        if pairs is not None and reading is not None:
            self._room = pairs.problems.room(reading)

    def add(self, index: int, problem: Problem) -> None:
        """Adds a record, once, however often it is met.

        Raises:
          UserError: more were left out than may be.
        """
        with self._lock:
            self._found.setdefault(index, problem)
        if len(self._found) > self._room:
            self.check()

    def check(self) -> None:
        """Raises UserError where more were left out than may be."""
        if self._pairs is not None and self._reading is not None:
            found = self._pairs.problems.with_images(self.problems.values())
            found.check(self._reading, self._name, self._pairs.spec)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def problems(self) -> dict[int, Problem]:
        """What is wrong with the image of each record, by index, ascending."""
        return dict(sorted(self._found.items()))

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices of the records, ascending."""
        return tuple(self.problems)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence for each record, with the name of its image, in the order of `indices`."""
        return tuple(map(str, self.problems.values()))


@runtime_checkable
class WithImage(Protocol):
    """A record with an image: a `Pair`, a `LabelledImage`, an item of an index."""

    @property
    def image(self) -> ImageRef:
        """Location of the image, for messages."""
        ...


@dataclasses.dataclass
class _Prepare:
    """Decodes and transforms single records, for both loaders and all their threads."""

    pairs: Sequence[WithImage]
    transform: Transform
    augment: Augment | None
    on_error: OnError
    skipped: Skipped
    background: tuple[int, int, int]

    def __post_init__(self):
        if self.on_error not in ("error", "skip"):
            raise UserError(f"data.on_error: found {self.on_error!r}; write 'error' or 'skip'")

    def decode(self, index: int) -> np.ndarray | None:
        """Decodes an image to `uint8 [H, W, 3]`; None for one that is skipped."""
        image = self.pairs[index].image
        try:
            return load_image(image, background=self.background)
        except ImageError as e:
            if self.on_error == "error":
                raise
            self.skipped.add(index, Problem.of_image(image, e))
            return None

    def view(self, image: np.ndarray, rng: Callable[[], np.random.Generator]) -> np.ndarray:
        """Makes one view, `f32 [S, S, 3]`."""
        if self.augment is None:
            return self.transform(image)
        return self.augment(image, rng(), self.transform)


def train_batches(
    pairs: Sequence[WithImage],
    *,
    transform: Transform,
    augment: Augment | None,
    batch: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 2,
    on_error: OnError = "error",
    background: tuple[int, int, int] = _WHITE,
    skipped: Skipped | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of training images without end; this process's share of each.

    Captions are not in them: they are sampled by position, whether their encodings are cached or
    not.

    Args:
      pairs: usually `open_pairs(...)`.
      transform: the image tower's own.
      augment: None for the plain transform.
      batch: global batch, over all processes.
      seed: of the run; order and views follow from it and the position.
      start_step: starting here equals skipping what came before.
      process_index: index of this process's share.
      process_count: number of shares.
      workers: threads that decode.
      on_error: "skip" puts the next readable record (by index) in the place of an unreadable one.
      background: RGB under transparent pixels.
      skipped: filled with the records that could not be read.

    Returns:
      A Grain iterator of `image` f32 [b, H, W, 3] and `index` i32 [b] (the record), with
      b = batch / process_count. Its `get_state` and `set_state` count from step 0; `close` it to
      end its threads.

    Raises:
      UserError: at once for a batch that does not fit; while iterating for an unreadable image.
    """
    share = len(positions(0, batch, process_index, process_count))
    check_batch(len(pairs), batch)
    skipped = Skipped() if skipped is None else skipped  # An empty one is false.
    prepare = _Prepare(pairs, transform, augment, on_error, skipped, background)
    order = order_of(pairs, seed)

    def record(local: int) -> dict[str, Any]:
        """The record of this process at a position counted over its own shares."""
        step, offset = divmod(local, share)
        return _train_record(prepare, order, step * batch + process_index * share + offset)

    return _train_batches(record, share, start_step, workers)


def _train_record(prepare: _Prepare, order: Order | WeightedOrder, position: int) -> dict[str, Any]:
    index, image = _first_readable(prepare, order.at(position))
    view = prepare.view(image, functools.partial(generator, order.seed, "augment", position))
    return {"image": view, "index": np.int32(index)}


def _train_batches(
    record: Callable[[int], dict[str, Any]], share: int, start_step: int, workers: int
) -> Iterator[dict[str, np.ndarray]]:
    import grain
    import grain.experimental

    # Threads work record by record, so memory is bounded by records and not by batches.
    dataset = grain.MapDataset.range(2**62).map(record).to_iter_dataset(_threads(workers, 64))
    dataset = dataset.batch(share, drop_remainder=True)
    batches = iter(grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=1))
    grain.experimental.set_next_index(batches, start_step)
    return batches


def _first_readable(prepare: _Prepare, index: int) -> tuple[int, np.ndarray]:
    n = len(prepare.pairs)
    for candidate in range(index, index + n):
        image = prepare.decode(candidate % n)
        if image is not None:
            return candidate % n, image
    raise UserError(f"data.pairs: none of the {n} images can be read ({_listed(prepare.skipped)})")


def image_batches(
    pairs: Sequence[WithImage],
    *,
    transform: Transform,
    augment: Augment | None = None,
    views: int = 1,
    seed: int = 0,
    batch: int,
    on_error: OnError = "error",
    background: tuple[int, int, int] = _WHITE,
    indices: Sequence[int] | Integer[np.ndarray, " k"] | None = None,
    workers: int | None = None,
    skipped: Skipped | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields every (record, view) once, record by record; the last batch is padded with zeros.

    View v of record i depends on (seed, i, v) alone: not on the batch, the other records or the
    number of views.

    Args:
      pairs: `open_pairs(...)` or `open_labelled(...)`.
      transform: the image tower's own.
      augment: None for the plain transform (all views are then equal).
      views: number of views of each record.
      seed: seed of the views.
      batch: rows of every batch, the last included.
      on_error: "skip" leaves an unreadable image out, all views of it.
      background: RGB under transparent pixels.
      indices: the records to take, in this order; None takes all.
      workers: threads that decode; None is one a core.
      skipped: filled with the records that could not be read.

    Yields:
      `image` f32 [batch, H, W, 3], `index` i32 [batch], `view` i32 [batch], `valid` bool [batch].
      Images that are left as they were decoded (`AsDecoded`) are a list without padding.

    Raises:
      UserError: at once for arguments that do not fit; while iterating for an unreadable image, or
        at the end if none was readable.
    """
    if batch < 1 or views < 1:
        raise UserError(f"batch and views must be at least 1, found batch {batch}, views {views}")
    skipped = Skipped() if skipped is None else skipped
    prepare = _Prepare(pairs, transform, augment, on_error, skipped, background)
    chosen = np.arange(len(pairs)) if indices is None else np.asarray(indices, np.int64)
    return _image_batches(prepare, chosen, views, seed, batch, workers or os.cpu_count() or 1)


def _image_batches(
    prepare: _Prepare, indices: np.ndarray, views: int, seed: int, batch: int, workers: int
) -> Iterator[dict[str, Any]]:
    import grain

    decode = _recent(prepare.decode, keep=2 * workers) if views > 1 else prepare.decode

    def element(i: int) -> tuple[np.ndarray, int, int] | None:
        index, view = int(indices[i // views]), i % views
        image = decode(index)
        if image is None:
            return None
        rng = functools.partial(generator, seed, "view", index, view)
        return prepare.view(image, rng), index, view

    size = prepare.transform.size
    ahead = min(256, max(2 * workers, _AHEAD_BYTES // (12 * size * size)))
    dataset = grain.MapDataset.range(len(indices) * views).map(element)
    # Grain's types do not say that it drops None.
    elements: Any = iter(dataset.to_iter_dataset(_threads(workers, ahead)))
    produced = False
    try:
        while rows := list(itertools.islice(elements, batch)):
            produced = True
            yield _pad(rows, batch, stacked=not isinstance(prepare.transform, AsDecoded))
    finally:
        elements.close()
    if len(indices) and not produced:
        raise UserError(f"data.pairs: none of the images can be read ({_listed(prepare.skipped)})")


def _listed(skipped: Skipped) -> str:
    return "; ".join(skipped.reasons[:3])


def _pad(rows: Sequence[tuple[np.ndarray, int, int]], batch: int, stacked: bool) -> dict[str, Any]:
    image: Any = [row[0] for row in rows]
    if stacked:
        image = np.zeros((batch, *rows[0][0].shape), np.float32)
    index, view = np.zeros(batch, np.int32), np.zeros(batch, np.int32)
    for i, row in enumerate(rows):
        index[i], view[i] = row[1:]
        if stacked:
            image[i] = row[0]
    return {"image": image, "index": index, "view": view, "valid": np.arange(batch) < len(rows)}


def _recent(
    decode: Callable[[int], np.ndarray | None], keep: int
) -> Callable[[int], np.ndarray | None]:
    """Caches the last few small results, so that an image is not decoded for every view."""
    results: dict[int, np.ndarray | None] = {}
    lock = threading.Lock()

    def remembered(index: int) -> np.ndarray | None:
        with lock:
            if index in results:
                return results[index]
        image = decode(index)
        if image is None or image.shape[0] * image.shape[1] <= _DECODED_PIXELS:
            with lock:
                results[index] = image
                while len(results) > keep:
                    del results[next(iter(results))]
        return image

    return remembered


def _threads(workers: int, ahead: int) -> Any:
    import grain

    if workers < 1:
        raise UserError(f"data.workers: found {workers}; write at least 1")
    return grain.ReadOptions(num_threads=workers, prefetch_buffer_size=max(ahead, workers))
