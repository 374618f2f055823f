"""Decodes a stream of images in several threads, in order, a bounded number ahead."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

# How far decoding may run ahead of its reader, in bytes of prepared images.
_AHEAD_BYTES = 2**28


def decoded_batches(
    images: Iterable[Any],
    prepare: Callable[[Any], Float[np.ndarray, "s s 3"]],
    rows: int,
    workers: int | None = None,
) -> Iterator[Float[np.ndarray, "b s s 3"]]:
    """Prepares images in threads and stacks them to batches; as `prepared_lists`."""
    for images_of_one in prepared_lists(images, prepare, rows, workers):
        yield np.stack(images_of_one)


def prepared_lists(
    images: Iterable[Any],
    prepare: Callable[[Any], np.ndarray],
    rows: int,
    workers: int | None = None,
) -> Iterator[list[np.ndarray]]:
    """Prepares images in threads, so many at a time; the last ones may be fewer.

    Example:
      >>> batches = prepared_lists(range(5), lambda i: np.full((1, 1, 3), i), rows=2)
      >>> [[int(image[0, 0, 0]) for image in batch] for batch in batches]
      [[0, 1], [2, 3], [4]]

    Args:
      images: a list, or a generator of any length; read as far as the threads are ahead.
      prepare: decodes and transforms one of them.
      rows: images a batch.
      workers: threads; None is one a core.

    Raises:
      UserError: as `prepare`, for the first image in order that cannot be read.
    """
    workers = workers or os.cpu_count() or 1
    stream = iter(images)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting: collections.deque[concurrent.futures.Future[np.ndarray]] = collections.deque()

        def submit(count: int) -> None:
            waiting.extend(pool.submit(prepare, i) for i in itertools.islice(stream, count))

        try:
            submit(rows + workers)
            while waiting:
                batch = [waiting.popleft().result() for _ in range(min(rows, len(waiting)))]
                # Before the reader works on this batch, so that the threads have the next ones.
                submit(max(min(2 * rows, _ahead(batch[0], rows)) + workers - len(waiting), 0))
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def _ahead(image: np.ndarray, rows: int) -> int:
    """How many images may be prepared ahead: at least a batch."""
    return max(rows, _AHEAD_BYTES // max(image.nbytes, 1))
