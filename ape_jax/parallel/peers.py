"""The processes of a run among each other: what they agree on, and an end that all of them hear of.

Messages go through the key-value store of JAX's coordination service, which is there as soon as a
process has joined, needs no device, and works while the main thread waits in a collective.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ape_jax.errors import UserError
from ape_jax.parallel.notices import Notices

_ROOM = "ape_jax"
_TURN = 5.0  # Seconds after which a thread that waits looks around.
_LOOK = 1.0  # Seconds after which the watch looks whether it is still wanted.
_GRACE = 3.0  # Seconds in which a process may come to the same end by itself.
_HEARING = 10.0  # Seconds that the first process, which keeps the store, stays for the others.


@dataclasses.dataclass(frozen=True)
class End:
    """How a process ended before the others, which end with it.

    Attributes:
      process: its index.
      code: exit code.
      sentence: what it says.
    """

    process: int
    code: int
    sentence: str


class Peers:
    """The other processes, as one of them sees them.

    Args:
      client: of JAX's coordination service.
      index: of this process.
      count: number of processes.

    Attributes:
      first: how a process ended before its time, once this one knows of it.
    """

    first: End | None = None
    _sentence: Callable[[str], str] = str

    def __init__(self, client: Any, index: int, count: int):
        self.index, self.count = index, count
        self._client, self._points = client, itertools.count(1)
        self._ending, self._left = threading.Event(), threading.Event()
        self._watching: threading.Thread | None = None
        self.notices = Notices(
            lambda position: self._put(f"stop/{index}", position),
            lambda: [self._wait(f"stop/{i}", i, "the end", None) for i in range(count)],
        )

    def ask(self, name: str) -> None:
        """Asks all processes to end, for a signal of that name that this one has got."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # Another has asked.
            self._put("asked", f"{name} to process {self.index}")

    def watch(self, ended: Callable[[End], None], sentence: Callable[[str], str]) -> None:
        """Starts a thread that listens to the other processes.

        Args:
          ended: is called when another process ends before its time, or all are asked to end.
          sentence: what is said in the second case, of the signal and the process.
        """
        self._sentence = sentence
        self._watching = threading.Thread(target=self._watch, args=(ended,), daemon=True)
        self._watching.start()

    def end(self, code: int, sentence: str) -> End:
        """Lets the others know that this process ends; returns the first end of all."""
        self._ending.set()
        mine = End(self.index, code, sentence)
        try:
            self._put("end", dataclasses.asdict(mine))
        except jax.errors.JaxRuntimeError:
            pass  # Another was first, or the store is gone with its process.
        found = self._get("end", _TURN)
        self.first = mine if found is None else End(**found)
        return self.first

    def heard(self) -> None:
        """Notes that this process has said that the run ends; the first one waits for the others.

        It keeps what they hear of each other, and is the last to go, some seconds later at most.
        Where no process has ended before its time nothing is done.
        """
        if self.first is None:
            return
        try:
            self._put(f"heard/{self.index}", True)
        except jax.errors.JaxRuntimeError:
            return
        until = time.monotonic() + _HEARING
        for index in range(1, self.count if self.index == 0 else 0):
            self._get(f"heard/{index}", max(until - time.monotonic(), 0.01))

    def leave(self) -> None:
        """Ends the watch: JAX is about to close what it asks."""
        self._left.set()
        if self._watching is not None:
            self._watching.join()

    def agree(
        self, point: str, facts: Mapping[str, str], remedy: str, within: float | None = None
    ) -> None:
        """Compares facts over all processes, each of which must call this at the same point.

        Args:
          point: what the processes are about to do, for the case that they are not.
          facts: values by name, short texts.
          remedy: what to do where they differ.
          within: seconds in which all must have come; None for as long as they are alive.

        Raises:
          UserError: the same on every process, naming what differs and which has which value.
        """
        number = next(self._points)
        key = f"agree/{number}"
        self._put(f"{key}/{self.index}", {"point": point, "facts": dict(facts)})
        if self.index == 0:
            found = [self._wait(f"{key}/{i}", i, point, within) for i in range(self.count)]
            said = _differing([x["point"] for x in found]) or _difference(
                [x["facts"] for x in found], remedy
            )
            self._put(f"{key}/said", said)
            if number > 1:  # All have read it: they are here.
                self._client.key_value_delete(f"{_ROOM}/agree/{number - 1}/")
        else:
            said = self._wait(f"{key}/said", 0, point, within)
        if said:
            raise UserError(said)

    def _wait(self, key: str, process: int, point: str, within: float | None) -> Any:
        start = time.monotonic()
        while (found := self._get(key, _TURN)) is None:
            if within is not None and time.monotonic() - start > within:
                raise UserError(
                    f"process {process} has not come to {point} within {within:.0f} s of process "
                    f"{self.index}; start all processes with the same command"
                )
        return found

    def _watch(self, ended: Callable[[End], None]) -> None:
        while not self._left.is_set():
            found = self._get("end", _LOOK)
            if found is None:
                asked = self._get("asked", 0.001)
                if asked is not None and not self.notices.take():
                    ended(self.end(0, self._sentence(asked)))
                continue
            self.first = End(**found)
            # Whoever comes to the same end by itself says so in its own words.
            if not (self._ending.wait(_GRACE) or self._left.is_set()):
                ended(self.first)
            return

    def _put(self, key: str, value: Any) -> None:
        self._client.key_value_set(f"{_ROOM}/{key}", json.dumps(value))

    def _get(self, key: str, seconds: float) -> Any:
        """The value, waited for; None if it does not come, or the store cannot be asked."""
        start = time.monotonic()
        try:
            found = self._client.blocking_key_value_get(f"{_ROOM}/{key}", int(1000 * seconds))
            return json.loads(found)
        except jax.errors.JaxRuntimeError:
            # Where the store is gone an answer comes at once, and so would the next.
            time.sleep(min(max(seconds - (time.monotonic() - start), 0.0), 0.2))
            return None


def _difference(facts: Sequence[Mapping[str, str]], remedy: str) -> str:
    """The sentence on the first fact that differs, "" where none does."""
    names = list(dict.fromkeys(name for some in facts for name in some))
    differ = [name for name in names if len({some.get(name) for some in facts}) > 1]
    if not differ:
        return ""
    first, *more = differ
    also = f" (and in {', '.join(more[:3])}{', ...' if more[3:] else ''})" if more else ""
    values = _by_value([some.get(first, "nothing") for some in facts])
    return f"the processes of this run differ in {first}{also}: {values}; {remedy}"


def _differing(points: Sequence[str]) -> str:
    """The sentence on processes that are at different points, "" for none."""
    if len(set(points)) == 1:
        return ""
    return (
        f"the processes of this run are not at the same point: {_by_value(points)}; start all of "
        "them with the same command, on the same files"
    )


def _by_value(values: Sequence[str]) -> str:
    """`0.001 in process 0, 0.009 in processes 1 and 2`."""
    at: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        at.setdefault(value, []).append(index)
    parts = [f"{_short(value)} in {_named(who)}" for value, who in list(at.items())[:4]]
    return ", ".join([*parts, "..."] if len(at) > 4 else parts)


def _named(indices: Sequence[int]) -> str:
    if len(indices) == 1:
        return f"process {indices[0]}"
    if len(indices) > 4:
        return f"processes {', '.join(map(str, indices[:3]))} and {len(indices) - 3} more"
    return f"processes {', '.join(map(str, indices[:-1]))} and {indices[-1]}"


def _short(value: str, limit: int = 80) -> str:
    return value if len(value) <= limit else f"{value[: limit - 3]}..."
