"""Looks at the images of a table on disk, without reading them: missing and empty ones."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from ape_jax.data.remote import fetch
from ape_jax.data.table.problems import Problem
from ape_jax.data.table.stored import Table
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageError, ImageRef, check_encoded
from ape_jax.parallel import hosts
from ape_jax.storage import nearby, sealed
from ape_jax.terminal.progress import PATIENCE, Progress

_SUGGESTED = 3  # Problems for which a folder is looked through.


def look(table: Table, spec: str) -> tuple[Bool[np.ndarray, " n"], Sequence[Problem]]:
    """Which images are there and not empty, and what is wrong with the others.

    A table in the cache folder is looked through once; after that only at what was wrong. Whoever
    decodes an image says so if it has gone since.

    Args:
      table: the pairs.
      spec: what they were read from, for the progress line.
    """
    known = _known(table)
    if known is None:
        good, problems = _look(table, spec)
    else:
        good, problems = np.ones(len(table), bool), []
        for row in known:
            cells = (table.cell(name, row) for name in ("path", "offset", "size"))
            if (problem := _problem(table, row, *cells, before=len(problems))) is not None:
                good[row] = False
                problems.append(problem)
    if table.folder is not None and (known is None or len(known) != len(problems)):
        with contextlib.suppress(OSError):  # A reader need not be able to write.
            bad = np.flatnonzero(~good).tolist()
            sealed.write(table.folder / "looked.json", {"cannot be used": bad})
    return good, problems


def _known(table: Table) -> list[int] | None:
    if table.folder is None:
        return None
    try:
        return sealed.read(table.folder / "looked.json")["cannot be used"]
    except (FileNotFoundError, UserError, KeyError):
        return None


def _look(table: Table, spec: str) -> tuple[Bool[np.ndarray, " n"], list[Problem]]:
    good, problems = np.ones(len(table), bool), []
    progress = Progress(f"looking for the images of {spec}", len(table), "images", after=PATIENCE)
    row, urls = 0, 0
    for batch in table.batches:
        columns = (batch.column(name).to_pylist() for name in ("path", "offset", "size"))
        for path, offset, size in zip(*columns, strict=True):
            if (problem := _problem(table, row, path, offset, size, len(problems))) is not None:
                good[row] = False
                problems.append(problem)
            urls += offset < 0 and path is not None and b"://" in path
            row += 1
        progress.update(row)
    if urls:
        hosts.say(
            f"{spec}: {urls:,} images are at urls; each is fetched when it is first read, and kept "
            f"in {fetch.images_dir()}"
        )
    return good, problems


def _problem(
    table: Table, row: int, path: bytes | None, offset: int, size: int, before: int
) -> Problem | None:
    if path is None or offset >= 0:
        if size:
            return None
    else:
        written = path.decode("utf-8", "surrogatepass")
        if "://" in written:
            return None
        try:
            check_encoded(written, "")
            return None
        except ImageError:
            pass
    return problem_of(table.image(row), before)


def problem_of(image: ImageRef, before: int = 0) -> Problem | None:
    """What is wrong with an image that is missing or empty; None for one that is there.

    Args:
      image: the reference.
      before: number of problems before it; the first few suggest the file that was meant.
    """
    try:
        if isinstance(image.source, str) and "://" not in image.source:
            check_encoded(image.source, image.name)
        elif image.nbytes == 0:
            check_encoded(b"", image.name)
    except ImageError as e:
        problem = Problem.of_image(image, e)
        source = image.source
        if before >= _SUGGESTED or problem.kind != "missing image" or not isinstance(source, str):
            return problem
        if instead := nearby.instead_of(source):
            reason = f"there is no such file; {instead}; correct the path"
            return problem._replace(reason=reason)
        return problem
    return None
