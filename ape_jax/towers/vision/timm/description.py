"""Descriptions of timm's models: config.json as `timm.models.save_for_hf` writes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ape_jax.errors import UserError
from ape_jax.towers.family import Fields

WRAPPER = "timm_wrapper"
"""`model_type` of transformers' class around a model of timm."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """One model of timm.

    Attributes:
      label: the file that describes it.
      architecture: its name, which stands for arguments of a class.
      args: arguments that replace those of the name, `model_args`.
      pretrained: how images are prepared, `pretrained_cfg`.
      pool: `global_pool` beside the arguments, "" for none; None where nothing is said.
    """

    label: str
    architecture: str
    args: Fields
    pretrained: Fields
    pool: str | None = None

    def unsupported(self, found: str) -> UserError:
        """A UserError that names what is not read natively."""
        return UserError(
            f"{self.label}: architecture {self.architecture!r} {found}, which is not read "
            f"natively; name the tower as torch:timm:{self.architecture} to freeze timm's own "
            "model"
        )


def describes(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is timm's."""
    model_type = config.get("model_type")
    return model_type == WRAPPER or (model_type is None and "architecture" in config)


def read(config: Mapping[str, Any], label: str) -> Description:
    """The description in a config.json.

    Args:
      config: its content; old files have the keys of `pretrained_cfg` at the top.
      label: its path.

    Raises:
      UserError: a key of another type.
    """
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        raise UserError(f"{label}: 'architecture' is {architecture!r}; write the name timm has")
    pool = config.get("global_pool")
    if pool is not None and not isinstance(pool, str):
        raise UserError(f"{label}: 'global_pool' is {pool!r}; write a name, such as 'token'")
    pretrained = "pretrained_cfg" if "pretrained_cfg" in config else None
    return Description(
        label=label,
        architecture=architecture,
        args=_section(config, "model_args", label),
        pretrained=Fields(config, label)
        if pretrained is None
        else _section(config, pretrained, label),
        pool=pool,
    )


def _section(config: Mapping[str, Any], key: str, label: str) -> Fields:
    values = config.get(key)
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise UserError(f"{label}: {key!r} is {type(values).__name__}; write an object")
    return Fields(values, f"{label}, section {key!r}", parent=config)
