"""Directories of timm's models, and of transformers' wrapper round them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ape_jax.errors import UserError
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.files import sources
from ape_jax.towers.files.names import Tensors
from ape_jax.towers.files.peft import merge
from ape_jax.towers.files.sections import Prefixed
from ape_jax.towers.layout import Found, Layout
from ape_jax.towers.tower import Kind
from ape_jax.towers.vision.timm import description, preprocessing, vit
from ape_jax.towers.vision.timm.architectures import named
from ape_jax.towers.vision.timm.description import Description

_WRAPPED = "timm_model."


def tower(described: Description, tensors: Tensors) -> Found:
    """The tower of a model of timm.

    Args:
      described: its description.
      tensors: its own, by timm's names.

    Raises:
      UserError: its architecture is not read natively, or something is said nowhere.
    """
    architecture = named(described.architecture)
    if architecture is None:
        raise described.unsupported("is of another kind than the vision transformers known here")
    family = FAMILIES["timm"]
    return Found(
        family=family,
        config=vit.read_config(described, architecture, tensors.shapes),
        tables=family.tables,
        tensors=tensors,
        prepare=partial(preprocessing.prepare, described),
    )


def _fits(path: Path, kind: Kind | None) -> bool:
    label = path / "config.json"
    try:
        config = sources.read_json_value(label) if sources.is_there(label) else None
    except UserError:  # Said where the file is read.
        return False
    return isinstance(config, dict) and description.describes(config)


def _find(path: Path, kind: Kind | None) -> Found:
    label = path / "config.json"
    if kind == "text":
        raise UserError(
            f"{label}: a model of timm is a tower of kind 'image', not 'text'; name another tower"
        )
    described = description.read(sources.read_json(label), str(label))
    tensors = merge.open_weights(path)
    wrapped = all(name.startswith(_WRAPPED) for name in tensors.shapes)
    return tower(described, Prefixed(tensors, _WRAPPED) if wrapped else tensors)


LAYOUT = Layout(name="timm's directory", fits=_fits, find=_find)
