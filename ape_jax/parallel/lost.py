"""A process that is lost: the others end with a sentence, and not in a stack of C++.

JAX's client of the coordination service hears of it, by the loss of the connection to the first
process or by heartbeats that no longer come, and aborts the process. It takes a callback to call
instead, but cannot hand it the C++ status that goes with it: the conversion throws, and what C++
calls then (`std::terminate`) is ours while a run has several processes. Where there is no such hook
(another C++ library), the process is aborted as before.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from jax._src import distributed

_KEPT: list[Any] = []  # C++ calls it at any later time.
_NAME = 8  # Bytes from the start of a `std::type_info` to the pointer to its name.


@contextlib.contextmanager
def heard_of(ended: Callable[[], None]) -> Iterator[None]:
    """Lets the client that JAX makes inside call `ended` where it would abort the process.

    Args:
      ended: says that a process is lost and ends this one; called in a thread of C++.
    """
    if not _on_bad_cast(ended):
        yield
        return
    jax_lib: Any = vars(distributed)["_jax"]
    make = jax_lib.get_distributed_runtime_client

    def made(*arguments: Any, **settings: Any) -> Any:
        # A later JAX that can hand over the status calls it in earnest.
        settings["missed_heartbeat_callback"] = lambda *status: ended()
        return make(*arguments, **settings)

    jax_lib.get_distributed_runtime_client = made
    try:
        yield
    finally:
        jax_lib.get_distributed_runtime_client = make


def _on_bad_cast(ended: Callable[[], None]) -> bool:
    """Calls `ended` when C++ ends for a failed conversion; False where that cannot be arranged."""
    if sys.platform != "linux":
        return False
    try:
        library = ctypes.CDLL("libstdc++.so.6")
        replace, thrown = library._ZSt13set_terminatePFvvE, library.__cxa_current_exception_type
    except (OSError, AttributeError):
        return False
    replace.restype = thrown.restype = ctypes.c_void_p
    function = ctypes.CFUNCTYPE(None)

    @function
    def terminate() -> None:
        kind = thrown()
        name = ctypes.c_char_p.from_address(kind + _NAME).value if kind else None
        if name is not None and name.lstrip(b"*") == b"St8bad_cast":
            ended()
        function(before)()
        os.abort()

    replace.argtypes = [function]
    before = replace(terminate)
    _KEPT.append(terminate)
    return True
