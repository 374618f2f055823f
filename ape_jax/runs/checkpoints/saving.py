"""What can happen to a work directory while a run saves into it, each in one sentence.

A disk becomes full or read-only, somebody removes the directory or puts another one in its place.
What the checkpoint library's threads say of it besides is left out.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ape_jax.errors import UserError

LOCK = ".lock"
"""The file in a work directory that names the start that works in it."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Errors that only writing has; others may be of a picture that is read meanwhile.
_OF_WRITING = (*_FULL, errno.EROFS, errno.EFBIG)
_CODE = re.compile(r"os_error_code='(\d+)'")  # TensorStore reports errors as text.
_RECORDS = ("config.json", "study.json")


class Place:
    """A work directory, or a folder in it, that is saved into and must stay the same one.

    Args:
      workdir: of a run or study.
      folder: an existing folder in it that is saved into.
    """

    def __init__(self, workdir: pathlib.Path, folder: str = ""):
        self._workdir, self._folder = workdir, workdir / folder
        self._start = self._named_start()
        self._records = [name for name in _RECORDS if (self._workdir / name).exists()]

    def check(self) -> None:
        """Checks that nobody has removed the directory or works there in our place.

        Saving would make it anew, with half a run in it.

        Raises:
          UserError: somebody has.
        """
        start = self._named_start()
        replaced = start is not None and start != self._start
        gone = [name for name in self._records if not (self._workdir / name).exists()]
        if replaced or gone or not self._folder.is_dir():
            raise UserError(
                f"--workdir: {self._workdir} was removed or replaced while this command was "
                "working in it, so nothing more is saved; remove what is left and run the same "
                "command again, which starts anew"
            )

    @contextlib.contextmanager
    def errors(self, latest: Callable[[], int | None], *, saves: bool) -> Iterator[None]:
        """Turns errors of the disk into a sentence.

        Args:
          latest: the step of the last finished checkpoint.
          saves: whether the block does nothing but save, so that any error of the system is one.

        Raises:
          UserError: the directory is gone, or cannot be written.
          OSError: likewise, where this is no work directory of a start, and the first that is saved
            into it: whoever writes says what it is.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            code = _code(error, any_of=None if saves else _OF_WRITING)
            if saves or code is not None:
                self.check()
            if code is None:
                raise
            step = latest()
            if step is None and self._start is None:
                raise OSError(code, os.strerror(code)) from error
            kept = (
                "there is no checkpoint yet"
                if step is None
                else (f"the last good checkpoint is step {step}")
            )
            if code in _FULL:
                found, cure = f"no space left on the disk of {self._workdir}", "free some space"
            else:
                found = f"{self._workdir} cannot be written ({os.strerror(code)})"
                cure = "make it writable"
            raise UserError(
                f"--workdir: {found}; {kept}; {cure} and run the same command"
            ) from error

    def _named_start(self) -> str | None:
        try:
            return (self._workdir / LOCK).read_text(errors="replace")
        except OSError:
            return None


def _code(error: BaseException | None, any_of: tuple[int, ...] | None) -> int | None:
    """The system's number of an error, along the chain: it shows first here and then there."""
    while error is not None:
        codes = [int(code) for code in _CODE.findall(str(error))]
        if isinstance(error, OSError) and error.errno is not None:
            codes.append(error.errno)
        if "No space left on device" in str(error):
            codes.append(errno.ENOSPC)
        if "quota exceeded" in str(error):
            codes.append(errno.EDQUOT)
        for code in codes:
            if any_of is None or code in any_of:
                return code
        error = error.__cause__ or error.__context__
    return None


def quiet() -> None:
    """Leaves out what threads that save say of an error that is raised as well.

    Each array that was still being written when a save failed calls back into an event loop that
    is closed by then, which is a traceback an array.
    """
    if not isinstance(sys.unraisablehook, _WithoutClosedLoops):
        sys.unraisablehook = _WithoutClosedLoops(sys.unraisablehook)
    logger = logging.getLogger("asyncio")
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)


class _WithoutClosedLoops:
    """Passes on errors that nobody can catch, but for calls of TensorStore into a closed loop."""

    def __init__(self, hook: Callable[[Any], object]):
        self._hook = hook

    def __call__(self, found: Any) -> None:
        trace = found.exc_traceback
        is_call = trace is not None and trace.tb_frame.f_code.co_name == "call_soon_threadsafe"
        if not (is_call and str(found.exc_value) == "Event loop is closed"):
            self._hook(found)


def _is_news(record: logging.LogRecord) -> bool:
    """Tests that a line of asyncio is not of a checkpoint that could not be written."""
    return ".orbax-checkpoint-tmp" not in record.getMessage()
