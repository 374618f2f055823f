"""Answers that the pairs have given, in JSON files of a work directory, each with its question."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.storage import atomic, disk, files


def read(
    file: pathlib.Path,
    question: Mapping[str, Any],
    is_sound: Callable[[Mapping[str, Any]], bool],
    otherwise: str,
) -> dict[str, Any] | None:
    """The record of an earlier start with the same question; None where there is none.

    Args:
      file: the record.
      question: what the answer depends on, `asked` in the record.
      is_sound: whether a record has what it must; what it raises is damage as well.
      otherwise: what is done where the record is damaged, for the line that says so.
    """
    try:
        found = files.read_json(file)
        same = found["asked"] == dict(question) and is_sound(found)
    except FileNotFoundError:
        return None
    except (UserError, OSError, KeyError, TypeError, ValueError) as error:
        hosts.say(f"{file} cannot be read ({error}); {otherwise}")
        return None
    return found if same else None


def write(file: pathlib.Path, record: Mapping[str, Any], again: str) -> None:
    """Writes a record, on the first process.

    Args:
      file: the record.
      record: with its question as `asked`.
      again: what to do where the disk takes no more, for messages.

    Raises:
      UserError: the file cannot be written.
    """
    if hosts.is_first():
        with disk.write_errors(f"--workdir: {file}", again=again):
            atomic.write_json(file, record)
