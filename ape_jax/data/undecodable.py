"""Finds images that cannot be decoded, in threads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ape_jax.data.pairs import Pairs
from ape_jax.data.table.problems import Problem
from ape_jax.images.decode import ImageError, load_image
from ape_jax.terminal.progress import track

_TOGETHER = 256


def undecodable(
    pairs: Pairs, what: str, rows: Iterable[int] | None = None, count: int | None = None
) -> Iterator[tuple[int, Problem]]:
    """Decodes images and yields what is wrong with those that cannot be.

    Args:
      pairs: the pairs.
      what: for the progress line.
      rows: indices of the pairs to look at; None for all.
      count: number of `rows`.

    Yields:
      Index of a pair, and what is wrong with its image.
    """
    chosen = iter(range(len(pairs)) if rows is None else rows)
    total = len(pairs) if rows is None else count

    def problem(row: int) -> tuple[int, Problem | None]:
        image = pairs.image_ref(row)
        try:
            load_image(image)
        except ImageError as error:
            return row, Problem.of_image(image, error)
        return row, None

    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def found() -> Iterator[tuple[int, Problem | None]]:
            while some := list(itertools.islice(chosen, _TOGETHER)):
                yield from pool.map(problem, some)

        for row, wrong in track(found(), what, total, "images"):
            if wrong is not None:
                yield row, wrong
