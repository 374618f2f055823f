"""Progress lines for work of more than a few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from ape_jax.parallel import hosts

T = TypeVar("T")
PATIENCE = 5.0
"""Seconds that work may take without a line."""


class Progress:
    """Prints items done, rate and time left: rewrites one line on a terminal, adds few to a log.

    Where the first step compiles, it says so, and reckons the rate from what comes after: a
    program that takes a minute to compile would promise an hour.

    Args:
      what: name of the work, such as "training".
      total: number of items; None if unknown.
      unit: unit of the rate, such as "pairs".
      per: units per item, if the rate is in other units than `total`.
      done: items done before this start, which do not count in the rate.
      compiles: whether the first step compiles.
      after: seconds of work before the first line; work that is shorter says nothing.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        per: float = 1.0,
        done: int = 0,
        *,
        compiles: bool = False,
        after: float = 0.0,
    ):
        self._after = after
        self._what, self._total, self._unit, self._per = what, total, unit, per
        self._start = self._shown = time.monotonic()
        # What the rate is reckoned from: items done, and when.
        self._base: tuple[int, float] | None = None if compiles else (done, self._start)
        self._live = sys.stderr.isatty()
        if compiles and hosts.is_first():
            self._print(f"{what}: compiling")

    def update(self, done: int, note: str = "") -> None:
        """Prints the line if it is time for one: five a second on a terminal, ever fewer in a log.

        Args:
          done: number of items done.
          note: text to append.
        """
        now = time.monotonic()
        last = self._total is not None and done >= self._total
        due = now - self._shown > self._pause(now)
        first, self._base = self._base is None, self._base or (done, now)
        if not (due or last or (first and self._live)) or not hosts.is_first():
            return
        if now - self._start < self._after:
            return
        self._shown = now
        before, since = self._base
        rate = (done - before) / max(now - since, 1e-9)
        parts = [f"{self._what}: {done}" + (f"/{self._total}" if self._total else "")]
        if rate:
            parts.append(f"{rate * self._per:,.0f} {self._unit}/s")
        if last:
            parts.append(_duration(now - self._start))
        elif self._total and rate:
            parts.append(f"{_duration((self._total - done) / rate)} left")
        self._print("  ".join([*parts, note]).rstrip(), last)

    def say(self, line: str) -> None:
        """Prints a line for the user, above the line that is rewritten."""
        if hosts.is_first():
            self._print(line, last=True)

    def _pause(self, now: float) -> float:
        """Seconds between two lines: a run of a day leaves a log that can be read."""
        return 0.2 if self._live else min(max(5.0, (now - self._start) / 20), 300.0)

    def _print(self, line: str, last: bool = False) -> None:
        lead, end = ("\r\x1b[K", "\n" if last else "") if self._live else ("", "\n")
        print(f"{lead}{line}", end=end, file=sys.stderr, flush=True)


def track(items: Iterable[T], what: str, total: int | None, unit: str) -> Iterator[T]:
    """Yields the items and shows progress, once the work has taken a few seconds.

    Args:
      items: the items.
      what: name of the work, such as "reading".
      total: number of items; None if unknown.
      unit: unit of the rate, such as "images".
    """
    progress, start = Progress(what, total, unit), time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - start > PATIENCE:
            progress.update(done)
        yield item


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
