"""Models of two towers in one directory: the section of config.json that describes each tower.

`VisionTextDualEncoderModel` keeps two models of any kind, each whole under a name of its own, and
what LilT saves is laid out likewise (`convert_torch`). CLIP and SigLIP are families that name the
tensors of both towers in their tables, and are not listed here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ape_jax.errors import UserError
from ape_jax.towers.files import lilt
from ape_jax.towers.files.names import Shape, Tensors
from ape_jax.towers.tower import Kind

DUAL_ENCODER = "vision-text-dual-encoder"
LILT = "lilt"
TWO_TOWERS = (
    "holds an image and a text tower; write kind='image' or kind='text' in Python, name it in "
    "image.tower or text.tower in a run's config"
)

# By model_type and kind: the section of config.json, and what stands before the tensors' names.
SECTIONS: Mapping[str, Mapping[Kind, tuple[str, str]]] = {
    DUAL_ENCODER: {
        "image": ("vision_config", "vision_model."),
        "text": ("text_config", "text_model."),
    },
    LILT: {
        "image": ("vision_config", "visual_encoder."),
        "text": ("text_config", "text_encoder."),
    },
}


# Tensors that stand among those of a tower and are none of its own, as a regular expression.
_EXCLUDED: Mapping[str, str] = {LILT: lilt.NAMES}


@dataclasses.dataclass(frozen=True)
class Section:
    """Description of one tower.

    Attributes:
      config: the content of a config.json.
      label: where it is from.
      prefix: what stands before the names of its tensors.
      excluded: see `Prefixed`.
    """

    config: Mapping[str, Any]
    label: str
    prefix: str = ""
    excluded: str = ""

    def within(self, whole: Tensors) -> Tensors:
        """Its tensors out of those of the file."""
        return Prefixed(whole, self.prefix, self.excluded) if self.prefix else whole

    def left_out(self, whole: Tensors) -> tuple[str, ...]:
        """The tensors of the file that stand among its own and are not."""
        mine = (name for name in whole.shapes if name.startswith(self.prefix))
        return tuple(name for name in mine if re.fullmatch(self.excluded, name))


def find(config: Mapping[str, Any], label: str, kind: Kind | None) -> Section:
    """The section of a config.json that describes a tower; the whole where one tower has it all.

    Args:
      config: the content of the file.
      label: its path.
      kind: which tower.

    Raises:
      UserError: two towers without `kind`, or a section that is not there.
    """
    model_type = config.get("model_type")
    sections = SECTIONS.get(str(model_type))
    if sections is None:
        return Section(config, label)
    if kind is None:
        raise UserError(f"{label}: model_type {model_type!r} {TWO_TOWERS}")
    section, prefix = sections[kind]
    values = config.get(section)
    if not isinstance(values, Mapping):
        raise UserError(f"{label}: {section!r} is {type(values).__name__}; write an object")
    name = f"{label}, section {section!r}"
    return Section(values, name, prefix, _EXCLUDED.get(str(model_type), ""))


@dataclasses.dataclass(frozen=True)
class Prefixed:
    """Tensors of a file whose names begin with a prefix, without it; see names.Tensors.

    Attributes:
      whole: those of the file.
      prefix: what is taken off.
      excluded: a regular expression over whole names, of tensors that are left out.
    """

    whole: Tensors
    prefix: str
    excluded: str = ""

    @property
    def label(self) -> str:
        """That of the file."""
        return self.whole.label

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shapes by the names without the prefix."""
        return {
            name.removeprefix(self.prefix): shape
            for name, shape in self.whole.shapes.items()
            if name.startswith(self.prefix) and not re.fullmatch(self.excluded, name)
        }

    def read(self, name: str) -> np.ndarray:
        """One tensor, as it lies in the file."""
        return self.whole.read(self.prefix + name)
