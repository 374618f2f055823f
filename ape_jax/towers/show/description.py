"""What a tower is: its family, its sizes, and how its inputs are prepared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ape_jax.config.outside import is_precomputed, is_torch
from ape_jax.errors import UserError
from ape_jax.towers import loading
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.show import card
from ape_jax.towers.tower import Kind, Tower

_EDGES = {
    "exact": "to a square of",
    "shortest": "the shorter edge to",
    "longest": "the longer edge to",
}


def describe(spec: str, kind: Kind | None = None) -> dict[str, Any]:
    """Describes a tower; of one that JAX runs no weights are read.

    Args:
      spec: as for `towers.read`.
      kind: which tower of a directory of two.

    Returns:
      Texts and numbers by name, in the order in which people read them.

    Raises:
      UserError: the tower cannot be read, or holds no weights.
    """
    if is_precomputed(spec):
        raise UserError(f"{spec!r} stands for features and is no tower; name a tower")
    if is_torch(spec):
        tower, _ = loading.read(spec, kind=kind)
        return {"tower": spec, "runs in": "torch, frozen", **_of(tower), **card.read(_inner(spec))}
    tower, shapes = loading.outline(spec, kind)
    family = FAMILIES[tower.config.family]
    exported = family.torch if isinstance(family.torch, str) else ""
    return {
        "tower": spec,
        "runs in": "JAX",
        "family": f"{family.name} ({family.title})",
        "parameters": sum(math.prod(leaf.shape) for leaf in shapes.values()),
        **_of(tower),
        "export to torch": f"no: {exported}" if exported else "yes",
        **card.read(spec),
    }


def lines(found: Mapping[str, Any]) -> str:
    """A description as lines of name and value."""
    width = max(map(len, found)) + 2
    return "\n".join(f"{name:{width}}{_shown(value)}" for name, value in found.items())


def _inner(spec: str) -> str:
    """The directory or hub name within `torch:hf:NAME`."""
    name = spec.split(":", 2)[2]
    return name if name.startswith((".", "/", "~")) else f"hf:{name}"


def _of(tower: Tower) -> dict[str, Any]:
    """What every tower has."""
    config = tower.config
    found = {
        "kind": tower.kind,
        "width": config.width,
        "layers": config.depth,
        "pooling": config.pooling,
        "pooled width": config.pooled_width(),
    }
    if not getattr(config, "pooling_known", True):
        found["pooling"] = f"mean, as no file says it (the family's is {config.pooling})"
        found["pooled width"] = config.pooled_width("mean")
    for name in ("image_size", "patch_size", "max_length", "vocab_size"):
        if getattr(config, name, None) is not None:
            found[name.replace("_", " ")] = getattr(config, name)
    return found | _preparation(tower.prepare)


def _preparation(prepare: Any) -> dict[str, Any]:
    transform: Any = getattr(prepare, "transform", None)
    if hasattr(transform, "resize"):
        how = f"resize {_EDGES.get(transform.resize, 'nothing,')} {transform.resize_size} pixels"
        mean, std = (
            ", ".join(f"{x:.4g}" for x in values) for values in (transform.mean, transform.std)
        )
        crop = f"({transform.interpolation}), crop {transform.size}"
        return {"preparation": f"{how} {crop}; mean {mean}; deviation {std}"}
    if hasattr(prepare, "encode"):
        special = f"{len(prepare.before)} special tokens before a text, {len(prepare.after)} after"
        filled = "; filled up to the longest length" if prepare.fills else ""
        return {"preparation": special + filled, "prefix": prepare.prefix}
    settings = getattr(getattr(prepare, "encoder", None), "settings", dict)()
    return {name: value for name, value in settings.items() if len(str(value)) < 200}


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return repr(value) if value == "" else str(value)
