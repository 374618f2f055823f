"""The end of this process at once, which is said one time, whichever thread comes to it first."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from ape_jax.storage import atomic

_MOMENT = 1.0  # Seconds to say a sentence in.
_said = threading.Lock()
_code = 1
_afterwards: list[Callable[[], None]] = []


def afterwards(call: Callable[[], None]) -> None:
    """Has this called when the last sentence is said, or where the interpreter ends in order."""
    _afterwards.append(call)
    atexit.register(call)


def at_once(sentence: str, code: int) -> NoReturn:
    """Prints a sentence on stderr and ends the process, whatever its threads are doing.

    In a cluster an orderly end would wait for processes that wait for this one; after a full disk,
    threads that write would add their tracebacks to the sentence.
    """
    global _code
    if not _said.acquire(blocking=False):
        # Another thread is ending the process; what it still waits for may need this one.
        time.sleep(_MOMENT)
        os._exit(_code)
    _code = code
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    with contextlib.suppress(Exception):
        print(sentence, file=sys.stderr, flush=True)
    atomic.remove_pending()
    for call in _afterwards:
        with contextlib.suppress(Exception):
            call()
    os._exit(code)
