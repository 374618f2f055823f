"""Shards encoded by actors on a Ray cluster, each of which makes the jobs for itself.

What goes to an actor is the config and numbers: which job of a run, which shard of it. It opens the
pairs and reads the towers where it is, and writes shards into the cache's directory, which all
machines share. This process holds no tower: what it must know of a job it asks an actor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ape_jax.data.table.problems import Problem
from ape_jax.errors import UserError
from ape_jax.features.cache import Cache
from ape_jax.features.fingerprint import Fingerprint
from ape_jax.features.jobs import Job
from ape_jax.parallel.actors import Again, Pool, RayCluster, open_pool

# Seconds that a network file system may take to show one machine what another has written.
_PATIENCE = 60.0

_DESCRIBED = ("what", "unit", "count", "per_item", "per_shard", "fingerprint")

Report = Callable[[int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteJob:
    """What this process knows of a job whose tower is in actors; the rest is as in `engine.Work`.

    Attributes:
      number: which of the run's jobs.
      pool: the actors.
    """

    number: int
    pool: Pool
    what: str
    unit: str
    count: int
    per_item: int
    per_shard: int
    fingerprint: Fingerprint

    def need(self, blocks: Sequence[range]) -> int:
        """Bytes of the features of all items of these blocks, at most."""
        return self.pool.ask("need", self.number, list(blocks))


@dataclasses.dataclass(frozen=True)
class OnRay:
    """An engine whose shards are encoded by the actors of a pool.

    Attributes:
      pool: the actors.
      skipped: what is wrong with the items that were left out, by job and index.
    """

    pool: Pool
    skipped: dict[int, dict[int, Problem]] = dataclasses.field(default_factory=dict)

    def jobs(self) -> Iterator[RemoteJob]:
        """The jobs of the run; before the next is asked for, the cache of one must be complete."""
        for number in itertools.count():
            described = self.pool.ask("describe", number, self.skipped.get(number - 1, {}))
            if described is None:
                return
            yield RemoteJob(number=number, pool=self.pool, **described)

    def share(self, shards: int) -> range:
        """Every shard: there is one process that asks, and the actors answer to it."""
        return range(shards)

    def write(self, job: RemoteJob, cache: Cache, todo: Sequence[int], report: Report) -> None:
        """Has the actors write these shards; see `engine.Engine`.

        Raises:
          UserError: as there; where a shard that an actor has written cannot be seen from here.
        """
        written: list[int] = []

        def take(task: int, skipped: Mapping[int, Problem]) -> None:
            written.append(todo[task])
            self.skipped.setdefault(job.number, {}).update(skipped)
            if len(written) == 1:  # The others are looked for when all are written.
                _require_seen(cache, written)

        tasks = [(job.number, job.fingerprint, cache.path, k) for k in todo]
        self.pool.run("write", tasks, take, report)
        _require_seen(cache, written)


@contextlib.contextmanager
def on_ray(
    cluster: RayCluster, root: Path, make: Callable[..., Iterator[Job]], *arguments: Any
) -> Iterator[OnRay]:
    """Opens an engine of actors, and ends them afterwards.

    Args:
      cluster: which, and how many actors.
      root: the directory of all caches, the same on all machines.
      make: a function of a module that makes the jobs of a run.
      *arguments: for `make`.

    Raises:
      UserError: where Ray is not installed, or there is no such cluster or no room in it.
    """
    with open_pool(cluster, Worker, root, make, arguments) as pool:
        yield OnRay(pool)


class Worker:
    """The jobs of a run in an actor; methods are called by `Pool`.

    Args:
      root: the directory of all caches.
      make: makes the jobs, one after the other.
      arguments: for `make`.
    """

    def __init__(self, root: Path, make: Callable[..., Iterator[Job]], arguments: Sequence[Any]):
        self._root, self._source = root, make(*arguments)
        self._jobs: list[Job] = []

    def describe(
        self, number: int, skipped: Mapping[int, Problem], *, report: Report
    ) -> dict[str, Any] | None:
        """What `RemoteJob` says of a job; None where there are no more.

        Args:
          number: which job.
          skipped: what is wrong with the items that the job before it has left out, by index.
          report: not used.
        """
        if number:
            for index, problem in skipped.items():
                self._job(number - 1).skipped.add(index, problem)
        job = self._job(number)
        return None if job is None else {name: getattr(job, name) for name in _DESCRIBED}

    def need(self, number: int, blocks: Sequence[range], *, report: Report) -> int:
        """Bytes of the features of all items of these blocks of a job, at most."""
        return self._job(number).need(blocks)

    def write(
        self, number: int, expected: Fingerprint, path: Path, k: int, *, report: Report
    ) -> dict[int, Problem]:
        """Writes one shard.

        Args:
          number: which job.
          expected: its fingerprint.
          path: directory of its cache.
          k: number of the shard.
          report: is told how many more units are encoded.

        Returns:
          Sentences on the items that were left out, by index.

        Raises:
          Again: where the shard cannot be written.
          UserError: where an item cannot be encoded; where this machine would make other features.
        """
        job = self._job(number)
        if job.fingerprint.digest != expected.digest:
            found = "; ".join(job.fingerprint.differences(expected.parts)[:3])
            raise UserError(
                f"--engine: {socket.gethostname()} would make other features than the machines "
                f"before it ({found}); pairs, towers and packages must be the same on all"
            )
        cache = self._cache(job)
        cache.path, block = path, cache.blocks[k]
        rows = job.encode(block, report)
        try:
            cache.write(k, rows)
        except UserError as error:
            raise Again(str(error)) from error
        left_out = getattr(job, "skipped", None)
        found = left_out.problems if left_out is not None else {}
        return {index: problem for index, problem in found.items() if index in block}

    def _job(self, number: int) -> Job | None:
        while len(self._jobs) <= number:
            if self._jobs:
                _wait_for(self._cache(self._jobs[-1]).is_complete)
            self._jobs.append(next(self._source, None))
        return self._jobs[number]

    def _cache(self, job: Job) -> Cache:
        return Cache(self._root, job.fingerprint, job.count, job.per_shard)


def _require_seen(cache: Cache, written: Sequence[int]) -> None:
    """Raises UserError unless these shards are, or soon become, visible to this process."""
    if not _wait_for(lambda: set(written) <= cache.finished().keys()):
        unseen = sorted(set(written) - cache.finished().keys())
        raise UserError(
            f"cache.dir: shard {unseen[0]} was written by an actor and is not in {cache.path} on "
            f"{socket.gethostname()}; all machines need a directory that they share"
        )


def _wait_for(test: Callable[[], bool]) -> bool:
    """Whether something comes true within the patience that a network file system asks."""
    until = time.monotonic() + _PATIENCE
    while not (found := test()) and time.monotonic() < until:
        time.sleep(0.5)
    return found
