"""Values of a config as a work directory records them: with paths that hold from any folder."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ape_jax.config import outside
from ape_jax.data.places import sources

_INSIDE = "workdir:"
_PATHS = ("image.tower", "text.tower", "start.run", "start.model", "classifier.names")
_NAMED = ("hf:", "demo:", outside.PREFIX)  # Specs that are no paths.


def recorded(path: pathlib.Path, flat: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they are recorded: pairs in the directory itself by their place in it.

    So the directory may be moved or copied with them.

    Args:
      path: the work directory.
      flat: the values by dotted key.
    """
    inside = f"{path}{os.sep}"
    return _with_pairs(absolute(flat), lambda spec: spec.replace(inside, _INSIDE))


def absolute(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Values with absolute paths: elsewhere a file of the same name is not that of the run."""
    found = _with_pairs(flat, sources.absolute)
    return found | {key: _absolute(flat[key]) for key in _PATHS if flat.get(key)}


def _absolute(spec: Any) -> Any:
    """The spec of a tower, a model or a run with an absolute path, where it is one."""
    if not isinstance(spec, str) or spec.startswith(_NAMED):
        return spec
    if outside.is_torch(spec):
        library, _, name = spec.removeprefix(outside.TORCH).partition(":")
        local = os.path.abspath(os.path.expanduser(name))
        return f"{outside.TORCH}{library}:{local}" if name and os.path.isdir(local) else spec
    return os.path.abspath(os.path.expanduser(spec))


def found(path: pathlib.Path, flat: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded values with the paths of pairs where the directory is now.

    Args:
      path: the work directory.
      flat: the values by dotted key, as `recorded` gives them.
    """
    return _with_pairs(flat, lambda spec: spec.replace(_INSIDE, f"{path}{os.sep}"))


def _with_pairs(flat: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    changed = dict(flat)
    for key in ("data.pairs", "data.images", "data.texts"):
        if isinstance(flat.get(key), str):
            changed[key] = change(flat[key])
    if isinstance(flat.get("data.eval"), Mapping):
        changed["data.eval"] = {
            name: change(spec) if isinstance(spec, str) else spec
            for name, spec in flat["data.eval"].items()
        }
    return changed
