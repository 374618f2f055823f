"""Preemption notices: SIGTERM to one process or to all."""

from __future__ import annotations

import itertools
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import jax

# Over all runs of a process: JAX's service counts too, and does not start again with a run.
_CALLS = itertools.count(1)


class Preemption:
    """Reports a preemption notice to every process at the same call.

    Example:
      with Preemption() as preemption:
        for batch in batches:
          state = step(state, batch)
          if preemption.requested():
            ...  # save, and end

    A single process handles the signal itself. With several processes any may receive it; JAX's
    preemption service then agrees with all of them on the call at which they end.
    """

    def __init__(self) -> None:
        self._noted = False
        self._before: Any = None

    def __enter__(self) -> Preemption:
        # Signals go to the main thread only; a run in another one is ended as ever.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def requested(self) -> bool:
        """Returns whether to end now; all processes must call it equally often."""
        if jax.process_count() == 1:
            return self._noted
        from jax.experimental import multihost_utils

        # The service counts in ones, and steps come in blocks.
        return multihost_utils.reached_preemption_sync_point(next(_CALLS))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = True
