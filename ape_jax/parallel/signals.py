"""Signals that ask a command to end, SIGTERM and SIGHUP, and Control-C where nobody listens.

A thread of its own hears of them and ends the process with a sentence, also while the main thread
imports, compiles or waits; an exception in the main thread could come up anywhere, and be taken for
an error there. Files and folders that were being written are removed; whatever else is left, the
next command clears, as after a kill. Training ends at the next step instead (`Preemption`), and
several processes end together (`peers`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from ape_jax.parallel import ends

NOTICES = (signal.SIGTERM, signal.SIGHUP)
"""What asks a command to end."""

_PATIENCE = 5.0  # Seconds for the main thread to come to the end of Control-C by itself.


class _State:
    kept = ""
    forward: Callable[[str], None] | None = None
    watched = False
    holding = 0


_state = _State()


def watch(kept: str) -> None:
    """Ends this process with a sentence on a signal; to be called in the main thread.

    Args:
      kept: what is said of the work.
    """
    _state.kept = kept
    if _state.watched:
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(reading,), daemon=True).start()
    _state.watched = True
    handle()


def handle() -> None:
    """Takes the signals, again where a library has taken them; one that is ignored stays so."""
    if _state.watched:
        for number in NOTICES:
            if signal.getsignal(number) != signal.SIG_IGN:  # As `nohup` has it.
                signal.signal(number, _noted)


def is_watched() -> bool:
    """Whether a signal ends this process with a sentence."""
    return _state.watched


@contextlib.contextmanager
def forwarded(to: Callable[[str], None]) -> Iterator[None]:
    """Tells the other processes of a run, which end together.

    Args:
      to: is called in a thread, with the name of the signal.
    """
    _state.forward = to
    try:
        yield
    finally:
        _state.forward = None


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Leaves it to the block when to end."""
    _state.holding += 1
    try:
        yield
    finally:
        _state.holding -= 1


def sentence(name: str, kept: str | None = None) -> str:
    """What a command says that a signal has ended.

    Args:
      name: of the signal.
      kept: what is said of the work; by default what `watch` was given.
    """
    return f"asked to end by {name}: {_state.kept if kept is None else kept}"


def _noted(number: int, frame: FrameType | None) -> None:
    """In the place of the system's own end; `_listen` does the rest."""


def _listen(reading: int) -> None:
    while True:
        for number in os.read(reading, 64):
            if number == signal.SIGINT:
                if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
                    threading.Thread(target=_insist, daemon=True).start()
            elif number not in NOTICES:
                continue
            elif _state.forward is not None:
                _state.forward(signal.Signals(number).name)
            elif not _state.holding:
                ends.at_once(sentence(signal.Signals(number).name), 0)


def _insist() -> None:
    """Ends the process if the exception of Control-C does not.

    Python drops it where it comes up in a destructor or a callback of the garbage collector.
    """
    time.sleep(_PATIENCE)
    ends.at_once(f"{_state.kept}\ninterrupted", 130)
