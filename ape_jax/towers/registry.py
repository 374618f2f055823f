"""The registry of tower families, and which of them a config.json describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError
from ape_jax.towers.family import Family, Fields
from ape_jax.towers.files.halves import HALVES
from ape_jax.towers.text.families import TEXT
from ape_jax.towers.tower import Kind
from ape_jax.towers.vision.families import VISION


def families() -> tuple[Family, ...]:
    """Every family there is."""
    return (*VISION, *TEXT)


def find(
    config: Mapping[str, Any], label: str, kind: Kind | None, directory: Path | None = None
) -> tuple[Family, Fields]:
    """The family that a config.json belongs to, and its section.

    Raises:
      UserError: unknown `model_type`, a two-tower file without `kind`, or the wrong kind.
    """
    model_type = config.get("model_type")
    fits = [f for f in families() if model_type in f.model_types]
    if not fits:
        known = sorted({*HALVES, *(t for f in families() for t in f.model_types)})
        raise UserError(f"{label}: model_type is {model_type!r}; supported are {', '.join(known)}")
    of_kind = [f for f in fits if kind in (None, f.kind)]
    if not of_kind:
        raise UserError(
            f"{label}: model_type {model_type!r} is a tower of kind {fits[0].kind!r}, "
            f"not {kind!r}; write kind={fits[0].kind!r} or name another tower"
        )
    if len(of_kind) > 1:
        raise UserError(
            f"{label}: model_type {model_type!r} holds an image and a text tower; "
            "write kind='image' or kind='text'"
        )
    family = of_kind[0]
    section = family.model_types[model_type]
    values = config if section is None else config.get(section, {})
    if not isinstance(values, Mapping):
        raise UserError(f"{label}: {section!r} is {type(values).__name__}; write an object")
    name = label if section is None else f"{label}, section {section!r}"
    return family, Fields(values, name, parent=config, directory=directory)
