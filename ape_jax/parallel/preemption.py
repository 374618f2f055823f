"""Preemption notices in training: SIGTERM or SIGHUP to one process or to all."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from types import FrameType, TracebackType

import jax

from ape_jax.parallel import agreement, signals

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

    A single process handles the signal itself. With several processes any may receive it, and they
    agree on the call at which they end (`notices`); where they were not joined by `hosts.cluster`,
    JAX's preemption service does.
    """

    def __init__(self) -> None:
        self._noted = False
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Preemption:
        self._open.enter_context(signals.held())
        if (peers := agreement.peers()) is not None:
            peers.notices.enter()
            self._open.callback(peers.notices.leave)
        # Signals go to the main thread only; a run in another one is ended as ever.
        elif jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            for number in signals.NOTICES:
                if signal.getsignal(number) != signal.SIG_IGN:
                    before = signal.signal(number, self._note)
                    self._open.callback(signal.signal, number, before)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def requested(self) -> bool:
        """Returns whether to end now; all processes must call it equally often."""
        if (peers := agreement.peers()) is not None:
            return peers.notices.due()
        if jax.process_count() == 1:
            return self._noted
        from jax.experimental import multihost_utils

        # The service counts in ones, and steps come in blocks.
        return multihost_utils.reached_preemption_sync_point(next(_CALLS))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = True
