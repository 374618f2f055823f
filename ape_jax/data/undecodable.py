"""Finds images that cannot be decoded, in threads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ape_jax.data.table.problems import Problem
from ape_jax.images.decode import ImageError, ImageRef, load_image
from ape_jax.terminal.progress import track

_TOGETHER = 256


def undecodable(
    image: Callable[[int], ImageRef], rows: Sequence[int], what: str
) -> Iterator[tuple[int, Problem]]:
    """Decodes images and yields what is wrong with those that cannot be.

    Args:
      image: gives the image of a row.
      rows: the rows to look at.
      what: for the progress line.

    Yields:
      A row, and what is wrong with its image.
    """
    chosen = iter(rows)

    def problem(row: int) -> tuple[int, Problem | None]:
        reference = image(row)
        try:
            load_image(reference)
        except ImageError as error:
            return row, Problem.of_image(reference, error)
        return row, None

    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def found() -> Iterator[tuple[int, Problem | None]]:
            while some := list(itertools.islice(chosen, _TOGETHER)):
                yield from pool.map(problem, some)

        for row, wrong in track(found(), what, len(rows), "images"):
            if wrong is not None:
                yield row, wrong
