"""`summary.json` of a work directory: what is written at the end, and read only if it is sound."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ape_jax.errors import UserError
from ape_jax.storage import files

FILE = "summary.json"

# Of a run that has come to its end; others of its keys are figures.
_COUNTS = ("step", "pairs", "parameters_trained", "parameters_frozen")
_OTHER = ("images_skipped_in_step", "best_step")
_FIGURES = ("eval/", "chance/")


def read(path: pathlib.Path) -> tuple[dict[str, Any] | None, str]:
    """The summary in a directory, of a run or a study.

    Args:
      path: the work directory.

    Returns:
      The summary, None where there is none or values in it are of the wrong kind; and what is wrong
      with it, "" where it is sound or not there.
    """
    file = path / FILE
    try:
        summary = files.read_json(file)
    except FileNotFoundError:
        return None, ""
    except UserError as error:
        return None, str(error)
    wrong = next((key for key, value in summary.items() if not _is_sound(key, value)), None)
    if wrong is not None:
        return None, f"{file}: {wrong[:80]!r} is {files.json_kind(summary[wrong])}"
    return (summary, "") if summary else (None, f"{file} is empty")


def missing(summary: Mapping[str, Any]) -> str:
    """The first key that every finished run has and this one has not; "" for none."""
    every = (*_COUNTS, "seconds_last_start")
    return next((key for key in every if key not in summary), "")


def _is_sound(key: str, value: Any) -> bool:
    if key in _COUNTS or key in _OTHER:
        return _is_count(value)
    if key == "seconds_last_start" or key.startswith(_FIGURES):
        return _is_number(value)
    known = _SHAPES.get(key)
    return known is None or known(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _map_of(inner: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(inner, value.values()))


def _list_of(inner: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(inner, value))


_METHODS = _map_of(_map_of(_map_of(_list_of(_is_number))))  # By method, set and metric.
_SHAPES: Mapping[str, Callable[[Any], bool]] = {
    "digests": _map_of(_is_text),
    "left_out": _map_of(_map_of(_is_count)),
    "closed_form": lambda value: isinstance(value, dict),
    "config": _is_text,
    "methods": _METHODS,
    "sizes": _map_of(_METHODS),
    "images": _map_of(_is_count),
    "costs": _map_of(_map_of(_is_number)),
}
