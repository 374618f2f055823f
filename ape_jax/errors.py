"""The exceptions that a user is meant to read."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user can put right: a config key, a file, a caption.

    The message is one sentence that names the config key or the file and line, what was found, and
    what to write instead. Commands print it alone on stderr and exit with status 1; anything else
    that escapes a command is a bug.
    """


class Preempted(Exception):
    """The run was asked to end (SIGTERM) and has saved its state; commands exit with status 0."""
