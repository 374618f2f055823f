"""`folds.json` of a work directory: curves of held-out folds, and the steps that they chose."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.storage import atomic, disk, files

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
    try:
        found = files.read_json(path / FILE)
        same = found["asked"] == dict(question) and _is_sound(found)
    except FileNotFoundError:
        return None
    except (UserError, OSError, KeyError, TypeError, ValueError) as error:
        hosts.say(f"{path / FILE} cannot be read ({error}); the folds are trained again")
        return None
    return found if same else None


def write(path: pathlib.Path, record: Mapping[str, Any], again: str) -> None:
    """Writes the record, on the first process.

    Raises:
      UserError: the file cannot be written.
    """
    if hosts.is_first():
        with disk.write_errors(f"--workdir: {path / FILE}", again=again):
            atomic.write_json(path / FILE, record)


def _is_sound(found: Mapping[str, Any]) -> bool:
    """Whether every fold has a figure for each point."""
    points = len(found["steps"])
    curves = [[float(x) for x in fold["recall"]] for fold in found["folds"]]
    chosen = found.get("chosen", 0)
    return all(len(curve) == points for curve in curves) and chosen in (0, *found["steps"])
