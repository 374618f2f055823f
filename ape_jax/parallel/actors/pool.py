"""A pool of actors that does independent tasks, and does them again where one is lost."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ape_jax.errors import UserError
from ape_jax.parallel.actors import cluster as cluster_lib
from ape_jax.parallel.actors.actor import Actor, Outcome, version
from ape_jax.parallel.actors.cluster import RayCluster, Room

_POLL = 1.0  # Seconds between two looks at how far the actors are.
_TRIES = 3  # Of a task that fails.
_LOSSES = 8  # Actors that may be lost with one task, or one after the other while they start.
_ROOM = 300.0  # Seconds without any actor after which a cluster counts as full.

Report = Callable[[int], None]
Take = Callable[[int, Any], None]


@dataclasses.dataclass
class _Slot:
    """An actor and what it is doing.

    Attributes:
      handle: Ray's handle.
      call: reference to the result of the call at work, None for none.
      task: the task at work; None while the actor is placed and made ready.
      node: where it is, "" while that is open.
      units: of the task, as reported.
      said: lines of the task that were printed.
      look: reference to the answer of how far it is.
      looked: when it was asked.
    """

    handle: Any
    call: Any
    task: int | None = None
    node: str = ""
    units: int = 0
    said: int = 0
    look: Any = None
    looked: float = 0.0

    def begin(self, task: int) -> None:
        """Notes a task that is given to the actor."""
        self.task, self.units, self.said, self.looked = task, 0, 0, time.monotonic()


class Pool:
    """Actors that each hold an object, made where they are, and call its methods.

    Args:
      ray: the module, connected.
      room: how many actors of which size.
      make: a function of a module, called in each actor.
      arguments: for `make`; small, they are sent to every actor.
    """

    def __init__(self, ray: Any, room: Room, make: Callable[..., Any], arguments: Sequence[Any]):
        self._ray, self._room, self._make = ray, room, (make, tuple(arguments))
        self._remote = ray.remote(max_concurrency=2, max_restarts=0)(Actor)
        self._lost_early, self._waiting = 0, time.monotonic()
        self._slots = [self._spawn() for _ in range(room.actors)]

    def ask(self, method: str, *arguments: Any) -> Any:
        """The result of one call, by any actor; prints the lines that it prints for the user.

        Raises:
          UserError: as `run`.
        """
        found: list[Any] = []
        self._run(method, [arguments], lambda _, value: found.append(value), _nothing, relays=True)
        return found[0]

    def run(
        self,
        method: str,
        tasks: Sequence[Sequence[Any]],
        take: Take,
        report: Report,
        ahead: int = 0,
    ) -> None:
        """Calls a method once for each task, on all actors at a time.

        Args:
          method: its name; it is called with the task's arguments and `report`.
          tasks: arguments of each.
          take: is given the number of each task, as it is done, and its result.
          report: is told how many more units are done; fewer, where a task is done again.
          ahead: how many tasks may be begun from the oldest that is not done on; 0 for all.

        Raises:
          UserError: the first that a task raises; one that may pass (`Again`), the third time.
            Where actors cannot be made, or die of a task again and again.
        """
        self._run(method, tasks, take, report, relays=False, ahead=ahead)

    @property
    def size(self) -> int:
        """Actors."""
        return len(self._slots)

    def close(self) -> None:
        """Ends the actors, whatever they are doing."""
        for slot in self._slots:
            self._end(slot)

    def _run(
        self,
        method: str,
        tasks: Sequence[Sequence[Any]],
        take: Take,
        report: Report,
        *,
        relays: bool,
        ahead: int = 0,
    ) -> None:
        run = _Run(len(tasks), report, ahead)
        while run.open:
            for slot in self._slots:
                if slot.call is None and (task := run.next()) is not None:
                    slot.begin(task)
                    slot.call = slot.handle.call.remote(method, tuple(tasks[task]), relays)
            for slot, ref in self._wait():
                try:
                    answer = self._ray.get(ref)
                except self._ray.exceptions.RayError as error:
                    if ref == slot.call:
                        self._lost(slot, run, error)
                    slot.look = None
                    continue
                if ref != slot.call:
                    slot.look = None
                    run.heard(slot, *answer)
                elif slot.task is None:
                    self._started(slot, answer)
                elif (task := run.ended(slot, answer)) is not None:
                    take(task, answer.value)

    def _wait(self) -> list[tuple[_Slot, Any]]:
        """Actors whose call is done or that say how far it is; none after a second."""
        now, waited = time.monotonic(), {}
        for slot in self._slots:
            if slot.task is not None and slot.look is None and now - slot.looked > _POLL:
                slot.look, slot.looked = slot.handle.progress.remote(), now
            waited |= {ref: slot for ref in (slot.call, slot.look) if ref is not None}
        self._require_room(now)
        done, _ = self._ray.wait(list(waited), num_returns=1, timeout=_POLL)
        return [(waited[ref], ref) for ref in done]

    def _require_room(self, now: float) -> None:
        if any(slot.node for slot in self._slots):
            self._waiting = now
        elif now - self._waiting > _ROOM:
            takes = f"{self._room.cpus:g} cores" + (" and a GPU" if self._room.gpus else "")
            raise UserError(
                f"--engine: for {_ROOM / 60:.0f} minutes no node of the Ray cluster has had room "
                f"for an actor, which takes {takes}; free some, or start one on this machine "
                "without --address"
            )

    def _spawn(self) -> _Slot:
        takes = {"num_cpus": self._room.cpus, "num_gpus": self._room.gpus}
        handle = self._remote.options(scheduling_strategy="SPREAD", **takes).remote()
        return _Slot(handle=handle, call=handle.where.remote())

    def _started(self, slot: _Slot, answer: Any) -> None:
        """Goes on with an actor that is placed, or that is ready."""
        if isinstance(answer, Outcome):
            if answer.kind == "bug":
                raise RuntimeError(f"an actor on {slot.node} failed:\n{answer.error}")
            if answer.kind != "done":
                raise UserError(f"{answer.error} (on {slot.node})")
            self._lost_early, slot.call = 0, None
            return
        slot.node, theirs = answer
        if theirs != version():
            raise UserError(
                f"--engine: {slot.node} has ape_jax {theirs} and this machine {version()}; install "
                "one version on all"
            )
        slot.call = slot.handle.start.remote(*self._make, os.getcwd(), self._room.threads)

    def _lost(self, slot: _Slot, run: _Run, error: Exception) -> None:
        """Has the task of a lost actor done by another, and puts a new actor in its place."""
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        if slot.task is None:
            self._lost_early += 1
            if self._lost_early >= _LOSSES:
                raise UserError(
                    f"--engine: actors end while they start ({reason}); is ape_jax installed on "
                    "every node, and is there memory for both towers?"
                ) from error
        else:
            run.heard(slot, 0)
            run.lost(slot.task, reason)
        self._end(slot)
        self._slots[self._slots.index(slot)] = self._spawn()

    def _end(self, slot: _Slot) -> None:
        with contextlib.suppress(Exception):  # It may be gone.
            self._ray.kill(slot.handle)


class _Run:
    """The state of a run's tasks."""

    def __init__(self, tasks: int, report: Report, ahead: int):
        self.open, self._todo = dict.fromkeys(range(tasks)), collections.deque(range(tasks))
        self._report, self._ahead = report, ahead
        self._failed: collections.Counter[int] = collections.Counter()
        self._lost: collections.Counter[int] = collections.Counter()

    def next(self) -> int | None:
        """The task to begin now, if any."""
        if not self._todo or (self._ahead and self._todo[0] >= next(iter(self.open)) + self._ahead):
            return None
        return self._todo.popleft()

    def heard(self, slot: _Slot, units: int, lines: Sequence[str] = ()) -> None:
        """Reports by how much the units of an actor's task have changed; prints new lines."""
        self._report(units - slot.units)
        for line in lines[slot.said :]:
            print(line, file=sys.stderr, flush=True)
        slot.units, slot.said = units, max(slot.said, len(lines))

    def ended(self, slot: _Slot, outcome: Outcome) -> int | None:
        """The task that an actor has done; None where it failed and is to be begun again.

        Raises:
          UserError: where it is not to be begun again.
        """
        task, slot.task, slot.call, slot.look = slot.task, None, None, None
        assert task is not None
        self.heard(slot, outcome.units, outcome.lines)
        if outcome.kind == "done":
            del self.open[task]
            return task
        self.heard(slot, 0)
        self._failed[task] += 1
        last = self._failed[task] == _TRIES
        if outcome.kind == "refused" or (last and outcome.kind == "again"):
            raise UserError(outcome.error)
        if last:
            raise RuntimeError(f"a task failed {_TRIES} times on a Ray cluster:\n{outcome.error}")
        self._todo.appendleft(task)
        return None

    def lost(self, task: int, reason: str) -> None:
        """Puts a task back that was lost with its actor."""
        self._lost[task] += 1
        if self._lost[task] == _LOSSES:
            raise UserError(
                f"--engine: {_LOSSES} actors ended, one after the other, in the same task "
                f"({reason}); is there memory for its batches?"
            )
        self._todo.appendleft(task)


@contextlib.contextmanager
def open_pool(cluster: RayCluster, make: Callable[..., Any], *arguments: Any) -> Iterator[Pool]:
    """Joins a cluster, or starts one, and makes the actors; ends them, and it, afterwards.

    Args:
      cluster: which, and how many actors.
      make: a function of a module, called in each actor.
      *arguments: for `make`.

    Raises:
      UserError: where Ray is not installed, or there is no such cluster or no room in it.
    """
    with cluster_lib.joined(cluster) as ray:
        pool = Pool(ray, cluster_lib.room(ray, cluster), make, arguments)
        try:
            yield pool
        finally:
            pool.close()


def _nothing(_: int) -> None:
    pass
