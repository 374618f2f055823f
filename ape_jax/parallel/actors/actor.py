"""What runs in the process of an actor: one object, and the calls of its methods."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Literal

from ape_jax.errors import UserError


class Again(UserError):
    """An error that another try, perhaps on another machine, need not meet."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a call.

    Attributes:
      kind: "done"; "refused" for an error of the user's; "again" for one that may pass; "bug" for
        any other exception.
      value: what the method returned.
      error: the sentence, or a bug's traceback.
      units: units that the call has counted.
      lines: what it has printed for the user.
    """

    kind: Literal["done", "refused", "again", "bug"]
    value: Any = None
    error: str = ""
    units: int = 0
    lines: tuple[str, ...] = ()


def version() -> str:
    """The version of this package."""
    return sys.modules["ape_jax"].__version__  # A room may not import the package.


class Actor:
    """Holds one object and calls its methods; a second thread says how far a call is."""

    def __init__(self):
        self._held: Any = None
        self._units, self._lines = 0, _Lines()

    def where(self) -> tuple[str, str]:
        """The machine, and the version of this package on it."""
        return socket.gethostname(), version()

    def start(
        self, make: Callable[..., Any], arguments: Sequence[Any], folder: str, threads: int
    ) -> Outcome:
        """Makes the object, before JAX has looked for devices.

        Args:
          make: makes the object.
          arguments: for `make`.
          folder: working directory, where there is such a one on this machine.
          threads: threads that compute, for JAX on a CPU.
        """
        with contextlib.suppress(OSError):
            os.chdir(folder)
        os.environ.setdefault("PJRT_NPROC", str(threads))

        def hold() -> None:
            self._held = _made(make, arguments)

        return _guarded(hold)

    def call(self, method: str, arguments: Sequence[Any], relays: bool) -> Outcome:
        """Calls a method of the object, which is given `report` to count units with.

        Args:
          method: its name.
          arguments: its arguments.
          relays: whether the lines that the method prints for the user are kept for them.
        """
        self._units, self._lines = 0, _Lines()
        with contextlib.redirect_stderr(self._lines) if relays else contextlib.nullcontext():
            found = _guarded(lambda: getattr(self._held, method)(*arguments, report=self._count))
        return dataclasses.replace(found, units=self._units, lines=self._lines.whole())

    def progress(self) -> tuple[int, tuple[str, ...]]:
        """Units that the call has counted, and lines that it has printed."""
        return self._units, self._lines.whole()

    def _count(self, units: int) -> None:
        self._units += units


def _guarded(call: Callable[[], Any]) -> Outcome:
    try:
        return Outcome(kind="done", value=call())
    except Again as error:
        return Outcome(kind="again", error=str(error))
    except UserError as error:
        return Outcome(kind="refused", error=str(error))
    except Exception:
        return Outcome(kind="bug", error=traceback.format_exc())


def _made(make: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """What `make` makes, in a process that computes as an undisturbed one with one device does."""
    import jax

    from ape_jax.parallel import programs

    # The number of devices decides how batches are cut, and so the last bits of what comes out.
    jax.config.update("jax_num_cpu_devices", 1)
    programs.keep()
    return make(*arguments)


class _Lines(io.TextIOBase):
    """Keeps what is written; another thread may ask for the lines that are whole."""

    def __init__(self):
        super().__init__()
        self._text = ""

    def write(self, text: str) -> int:
        """Keeps text; see `io.TextIOBase`."""
        self._text += text
        return len(text)

    def whole(self) -> tuple[str, ...]:
        """All lines so far."""
        return tuple(self._text.rpartition("\n")[0].splitlines())
