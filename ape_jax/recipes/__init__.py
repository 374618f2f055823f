"""Experiments, one a file: `--config NAME[:ARGUMENTS]` takes one by its name.

A recipe is a config file: Python with `get_config(arg="") -> ml_collections.ConfigDict`. Copy one
to change it, and name the copy: `--config ./mine.py:ARGUMENTS`.
"""

from __future__ import annotations

import difflib
import importlib
import pathlib
import types
from collections.abc import Mapping
from typing import Any

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.config.border import python_file
from ape_jax.errors import UserError

_FOLDER = pathlib.Path(__file__).parent


def names() -> tuple[str, ...]:
    """The recipes of the package.

    >>> "few_pairs" in names()
    True
    """
    return tuple(sorted(_modules()))


def read(
    spec: str, what: str = "--config", arguments: Mapping[str, Any] | None = None
) -> ml_collections.ConfigDict:
    """The config that a recipe or a config file makes of its arguments, not yet checked.

    >>> read("ape:image=features:512,text=features:384,pairs=x.npz").text.tower
    'features:384'

    Args:
      spec: `NAME[:ARGUMENTS]` for a recipe of the package, `FILE.py[:ARGUMENTS]` for a file.
      what: where the user wrote it, for the sentence of an error.
      arguments: arguments by name, in the place of those in `spec`.

    Raises:
      UserError: where there is no such recipe or file, or it makes no config of the arguments.
    """
    name, _, arg = spec.partition(":")
    if pathlib.PurePath(name).suffix == ".py":
        module = _file(name, what)
    elif name in names():
        module = importlib.import_module(_modules()[name])
    else:
        shown = name if len(name) <= 200 else f"{name[:197]}..."
        close = difflib.get_close_matches(shown.replace("-", "_"), names(), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? There are" if close else "there are"
        raise UserError(
            f"{what}: no recipe is called {shown!r}; {hint} {', '.join(names())}; "
            "a file of your own ends in .py"
        )
    with python_file.running(name, what):
        config = module.get_config(arg if arguments is None else arguments)
    if isinstance(config, Config):  # Checked already, as one that is read back from a run is.
        return ml_collections.ConfigDict(config_lib.unflatten(config_lib.flatten(config)))
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"{what}: get_config in {name} must return an ml_collections.ConfigDict, and returns "
            f"{type(config).__name__}"
        )
    return config


def _modules() -> dict[str, str]:
    """The module of each recipe, by its name; some lie in folders."""
    files = (p for p in _FOLDER.rglob("*.py") if p.stem != "__init__")
    parts = {p.stem: p.relative_to(_FOLDER).with_suffix("").parts for p in files}
    return {name: ".".join((__name__, *of)) for name, of in parts.items()}


def _file(path: str, what: str) -> types.ModuleType:
    try:
        return python_file.load(path, what)
    except FileNotFoundError:
        stem = pathlib.PurePath(path).stem
        known = f"; the recipe of that name is {stem}" if stem in names() else ""
        raise UserError(f"{what}: found no such config file as {path}{known}") from None
