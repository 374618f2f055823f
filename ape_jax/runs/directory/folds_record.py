"""`folds.json` of a work directory: curves of held-out folds, and the steps that they chose."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.runs.directory import answers

FILE = "folds.json"


def asked(config: Config, digests: Mapping[str, str]) -> dict[str, Any]:
    """What the curves depend on: the settings, and the content of the pairs.

    Args:
      config: the resolved config.
      digests: of the pairs, by name; those that are evaluated on do not matter.
    """
    pairs = {name: found for name, found in digests.items() if not name.startswith("eval/")}
    return {"config": config_lib.digest(config.replace({"data.eval": {}})), "pairs": pairs}


def read(path: pathlib.Path, question: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of an earlier start with the same question; None where there is none.

    Args:
      path: the work directory.
      question: of `asked`.
    """
    return answers.read(path / FILE, question, _is_sound, "the folds are trained again")


def write(path: pathlib.Path, record: Mapping[str, Any], again: str) -> None:
    """Writes the record, on the first process.

    Raises:
      UserError: the file cannot be written.
    """
    answers.write(path / FILE, record, again)


def _is_sound(found: Mapping[str, Any]) -> bool:
    """Whether every fold has a figure for each point."""
    points = len(found["steps"])
    curves = [[float(x) for x in fold["recall"]] for fold in found["folds"]]
    chosen = found.get("chosen", 0)
    return all(len(curve) == points for curve in curves) and chosen in (0, *found["steps"])
