"""Making the next items in a thread while the current one is in use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")

_PATIENCE = 0.1  # Seconds between two looks at whether the reader is gone.


def ahead(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """The same items, made in a thread that runs up to `depth` of them ahead.

    An error of the thread is raised where its item would have come. `close` the result, or use it
    up, and the thread has ended and `items` is closed, in that thread.

    Args:
      items: a generator; no one else may touch it.
      depth: how many finished items wait at most.
    """
    ready: queue.Queue[tuple[str, object]] = queue.Queue(maxsize=depth)
    gone = threading.Event()

    def put(entry: tuple[str, object]) -> None:
        while not gone.is_set():
            try:
                return ready.put(entry, timeout=_PATIENCE)
            except queue.Full:
                pass

    def work() -> None:
        try:
            for item in items:
                put(("item", item))
                if gone.is_set():
                    break
        except BaseException as error:  # The reader's to raise, whatever it is.
            put(("error", error))
        else:
            put(("end", None))
        finally:
            items.close()

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        gone.set()
        thread.join()
