"""A notice to end that one process of a run has got: all end at the same call, or at once.

JAX's own service for this takes SIGTERM away from Python for good and tells nobody before the first
step, so that processes that encode or compile would not hear of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Notices:
    """How far this process is, and where all stop.

    Args:
      put: makes this process's position known to the others.
      positions: waits for the positions of all.
    """

    def __init__(self, put: Callable[[int], None], positions: Callable[[], list[int]]):
        self._put, self._positions = put, positions
        self._lock = threading.Lock()
        # Over all runs of a process, each of which makes as many calls on every process.
        self._passed, self._inside, self._posted = 0, False, False
        self._stop: int | None = None

    def enter(self) -> None:
        """From here on this process asks `due` at every step."""
        with self._lock:
            self._inside = True

    def leave(self) -> None:
        """From here on it does not."""
        with self._lock:
            self._inside = False

    def take(self) -> bool:
        """Takes a notice, in the thread that watches; False before this process asks.

        Its position is fixed here and not in `due`: the main thread may be in a step that waits for
        another process, which already waits for this position.
        """
        with self._lock:
            if self._inside and not self._posted:
                self._posted = True
                self._put(self._passed)
            return self._posted

    def due(self) -> bool:
        """Whether to end now; all processes must call it equally often."""
        with self._lock:
            if not self._posted:
                self._passed += 1
                return False
        if self._stop is None:  # Nobody has passed the call after the furthest one.
            self._stop = max(self._positions()) + 1
        self._passed += 1
        return self._passed >= self._stop
