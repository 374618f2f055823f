"""`left_out.jsonl` of a work directory: every row and image that is not used, and why."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ape_jax.data.image_loader import Skipped
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.table.problems import Problem, Problems
from ape_jax.data.undecodable import undecodable
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.parallel.hosts import say
from ape_jax.runs.directory import workdir
from ape_jax.storage import atomic, disk, files
from ape_jax.training.run import Run

FILE = "left_out.jsonl"
_LONGEST = 1 << 20  # Bytes of a line.

Counts = dict[str, dict[str, int]]


def of(run: Run) -> dict[str, Problems]:
    """What the pairs of a run leave out, by their name in its digests."""
    datasets = {"train": run.dataset} | {f"eval/{t.name}": t.dataset for t in run.tasks}
    return {
        name: dataset.pairs.problems
        for name, dataset in datasets.items()
        if isinstance(dataset.pairs, Pairs)
    }


def write(path: pathlib.Path, found: Mapping[str, Problems], *, keeps: bool = False) -> Counts:
    """Writes the file, one JSON object a line with `of`, `where`, `kind` and `reason`.

    What two sets that are parts of one source have in common is listed once. Where nothing is left
    out there is no file.

    Args:
      path: the work directory.
      found: what is left out, by the name of the data set.
      keeps: whether lines of an earlier start stay: images that are read in the step are met one
        by one.

    Returns:
      How many are left out, by data set and kind.

    Raises:
      UserError: the file cannot be written.
    """
    counts = {name: problems.counts() for name, problems in found.items() if len(problems)}
    file = path / FILE
    if hosts.is_first():
        old = list(_read(file)) if keeps else []
        with disk.write_errors(f"--workdir: {file}", again=workdir.AGAIN):
            if counts or old:
                atomic.write(file, lambda partial: _fill(partial, _lines(found, old)))
            else:
                file.unlink(missing_ok=True)
    return counts


def note(run: Run, path: pathlib.Path, skipped: Skipped) -> None:
    """Adds what this process has skipped so far, on the first process, for a start after a kill.

    Args:
      run: the run.
      path: its work directory.
      skipped: the images that could not be read in the step.

    Raises:
      UserError: the file cannot be written.
    """
    pairs = run.dataset.pairs
    if hosts.is_first() and isinstance(pairs, Pairs):
        found = pairs.problems.with_images(skipped.problems.values())
        write(path, of(run) | {"train": found}, keeps=True)


def with_skipped(
    run: Run, skipped: Skipped, earlier: pathlib.Path | None = None
) -> tuple[dict[str, Problems], int]:
    """What a run leaves out, with images that were skipped in the step.

    Processes skip images of their own share; all of them get the same answer here.

    Args:
      run: the run.
      skipped: what this process has skipped.
      earlier: the work directory of a run that was resumed, which lists what was skipped before.

    Returns:
      The problems as `of` gives them, and how many images were skipped in the step.

    Raises:
      UserError: all processes together have skipped more than may be.
    """
    found, pairs, met = of(run), run.dataset.pairs, skipped.problems
    reading = Reading.of(run.aligned.config.data)
    if not isinstance(pairs, Pairs) or reading.on_error == "error":
        return found, 0
    if jax.process_count() > 1:
        missing = sorted(set(_union(met)) - set(met))
        met |= dict(undecodable(pairs.image_ref, missing, "looking at skipped images"))
    images = [met[row] for row in sorted(met)]
    if earlier is not None:
        images += _skipped_before(earlier / FILE, {*pairs.problems, *images})
    if images:
        found["train"] = pairs.problems.with_images(images)
        found["train"].check(reading, "training", pairs.spec)
        say(f"training: {found['train']}; the first: {images[0]}")
    return found, len(images)


def _skipped_before(file: pathlib.Path, known: Collection[Problem]) -> list[Problem]:
    """The images that an earlier start of the same run met in the step, and this one has not."""
    listed = [_problem(entry) for entry in _read(file) if entry.get("of") == "train"]
    where = {problem.where for problem in known}
    return list({p.where: p for p in listed if p.where not in where}.values())


def _problem(entry: Mapping[str, Any]) -> Problem:
    return Problem(**{key: str(entry.get(key)) for key in Problem._fields})


def _union(rows: Mapping[int, Problem]) -> Sequence[int]:
    """The indices of all processes."""
    mine = np.asarray(sorted(rows), np.int64)
    counts = np.asarray(multihost_utils.process_allgather(np.int32(len(mine)))).reshape(-1)
    padded = np.full(int(counts.max()), -1, np.int32)
    padded[: len(mine)] = mine
    every = np.asarray(multihost_utils.process_allgather(padded)) if len(padded) else padded
    return [row for row in np.unique(every).tolist() if row >= 0]


def _lines(found: Mapping[str, Problems], old: Sequence[dict[str, Any]]) -> Iterator[str]:
    seen: set[Problem] = set()
    for name, problems in found.items():
        for problem in problems:
            if problem not in seen:
                seen.add(problem)
                yield json.dumps({"of": name, **problem._asdict()})
    for entry in old:
        problem = _problem(entry)
        if problem not in seen:
            seen.add(problem)
            yield json.dumps(entry)


def _fill(partial: pathlib.Path, lines: Iterator[str]) -> None:
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _read(file: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The lines of an earlier start; those that are not ours are left out."""
    try:
        with files.opened(file) as lines:
            while line := lines.readline(_LONGEST):
                with contextlib.suppress(UserError):
                    yield files.parse_json(line, str(file))
    except FileNotFoundError:
        return
    except (OSError, UserError) as error:
        hosts.say(f"{error}; it is made again")
