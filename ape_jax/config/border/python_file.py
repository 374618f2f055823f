"""A config file is Python of the user's own: whatever it does, it is a config or one sentence."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
import types
from collections.abc import Iterator
from typing import NoReturn

from ape_jax.errors import UserError
from ape_jax.storage import files

_LARGEST = 16 << 20  # Bytes; a config of a thousand keys has 50 kB.
_LONG = 20.0
"""Seconds after which a file that is still running is named."""


def load(path: str, what: str) -> types.ModuleType:
    """Runs a config file and gives its module.

    Nothing that was compiled before is taken in its place, so that a file which is changed twice
    within a second is read as it is.

    Args:
      path: the file.
      what: where the user wrote it, for the sentence of an error.

    Raises:
      FileNotFoundError: there is none.
      UserError: it is no file of Python, or fails.
    """
    content = files.read_bytes(path, f"{what}: {path}", _LARGEST)
    spec = importlib.util.spec_from_file_location("ape_jax_config", path)
    if spec is None:
        raise UserError(f"{what}: {path} is no file of Python")
    module = importlib.util.module_from_spec(spec)
    with running(path, what):
        exec(compile(content, path, "exec"), module.__dict__)
    return module


@contextlib.contextmanager
def running(name: str, what: str) -> Iterator[None]:
    """Turns whatever the code of a config does in the block into one sentence.

    What it prints goes to stderr, since a command's own output may be read by a program. A block
    that takes long is named, because only the user can tell whether it will end.

    Args:
      name: of the file or recipe.
      what: where the user wrote it.

    Raises:
      UserError: the code failed, or would have ended the process.
    """
    line = f"{what}: {name} has been running for {_LONG:.0f} s; Ctrl-C stops it"
    timer = threading.Timer(_LONG, lambda: print(line, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        with contextlib.redirect_stdout(sys.stderr), _no_end():
            yield
    except (UserError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise UserError(
            f"{what}: {name} ended the process (exit code {str(error.code)[:80]}) and gave no "
            "config; return one from get_config, or raise an error that says what is wrong"
        ) from error
    except BaseException as error:  # The file is the user's code: any error in it is theirs.
        raise UserError(
            f"{what}: {name} failed with {type(error).__name__}: {_reason(error)}"
        ) from error
    finally:
        timer.cancel()


def _reason(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())[:1000] or "no reason given"
    except Exception:  # An error of the file's own may fail at that, too.
        return "no reason given"


@contextlib.contextmanager
def _no_end() -> Iterator[None]:
    """Makes `os._exit`, which asks nobody, an exit like `sys.exit` in the block."""
    own, process = os._exit, os.getpid()

    def leave(status: int) -> NoReturn:
        if os.getpid() != process:  # A child of the file's own.
            own(status)
        raise SystemExit(status)

    os._exit = leave
    try:
        yield
    finally:
        os._exit = own
