"""The registry of tower families, and which of them a config.json describes.

A new family is one file and one line here; from outside the package, one file and
`FAMILIES.register(FAMILY)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ape_jax.config.registry import Registry
from ape_jax.errors import UserError
from ape_jax.towers.family import Family, Fields, TorchClass
from ape_jax.towers.files.sections import SECTIONS
from ape_jax.towers.tower import Kind

FAMILIES: Registry[Family] = Registry(
    "tower family",
    {
        "vit": "ape_jax.towers.vision.vit:VIT",
        "deit": "ape_jax.towers.vision.deit:DEIT",
        "dinov2": "ape_jax.towers.vision.dinov2:DINOV2",
        "clip": "ape_jax.towers.vision.clip:CLIP",
        "siglip": "ape_jax.towers.vision.siglip:SIGLIP",
        "bert": "ape_jax.towers.text.bert:BERT",
        "roberta": "ape_jax.towers.text.roberta:ROBERTA",
        "distilbert": "ape_jax.towers.text.distilbert:DISTILBERT",
        "mpnet": "ape_jax.towers.text.mpnet:MPNET",
        "clip_text": "ape_jax.towers.text.clip_text:CLIP_TEXT",
        "siglip_text": "ape_jax.towers.text.siglip_text:SIGLIP_TEXT",
    },
)


def find(
    config: Mapping[str, Any], label: str, kind: Kind | None, directory: Path | None = None
) -> tuple[Family, Fields]:
    """The family that a config.json belongs to, and its section.

    Raises:
      UserError: unknown `model_type`, a two-tower file without `kind`, or the wrong kind.
    """
    model_type: Any = config.get("model_type")
    fits = [f for f in FAMILIES.values() if model_type in f.model_types]
    if not fits:
        known = sorted({*SECTIONS, *(t for f in FAMILIES.values() for t in f.model_types)})
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


def torch_classes() -> dict[str, TorchClass]:
    """How towers are written for transformers' classes, by their model_type; where they can be."""
    return {
        model_type: family.torch
        for family in FAMILIES.values()
        for model_type, section in family.model_types.items()
        if section is None and not isinstance(family.torch, str)
    }
