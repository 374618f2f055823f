"""The exceptions that a user is meant to read, and the words they share."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user can put right: a config key, a file, a caption.

    The message is one sentence that names the config key or the file and line, what was found, and
    what to write instead. Commands print it alone on stderr and exit with status 1; anything else
    that escapes a command is a bug.
    """


def install(extra: str) -> str:
    """What to run for the packages of an extra; the extras are in pyproject.toml.

    >>> install("export")
    'pip install "ape_jax[export]"'

    Args:
      extra: its name.
    """
    return f'pip install "ape_jax[{extra}]"'


class Preempted(Exception):
    """The run was asked to end (SIGTERM) and has saved its state; commands exit with status 0."""
