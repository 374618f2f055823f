"""The end of a command that cannot print what it found: `ape-jax ... | head`, or a full disk."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def written() -> Iterator[None]:
    """Has all output written before the process ends, and ends it with code 1 where it cannot be.

    Nothing is said where the reader of a pipe has left; any other reason is one sentence. An error
    that has nothing to do with the output passes.
    """
    try:
        yield
        _flush()
    except SystemExit:
        _flush()
        raise
    except OSError:
        # Which file it was does not say; where it was another, an empty line is printed here.
        _flush(more="\n")
        raise


def _flush(more: str = "") -> None:
    """Writes what is not yet written, and ends the process where that fails."""
    if sys.stdout is None:  # `>&-`
        return
    try:
        print(more, end="", flush=True)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"error: stdout cannot be written ({error.strerror})", file=sys.stderr)
        # The interpreter writes what is left when it ends.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        sys.exit(1)
