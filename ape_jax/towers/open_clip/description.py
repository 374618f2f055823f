"""Descriptions of open_clip's models: open_clip_config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError
from ape_jax.towers.family import Fields
from ape_jax.towers.files import hub, sources
from ape_jax.towers.files.names import Tensors
from ape_jax.towers.files.peft import merge

FILE = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
_CONVERT = (
    "a format that can run code when it is read; convert it once where you trust it: "
    "safetensors.torch.save_file(open_clip.create_model('local-dir:DIR').state_dict(), "
    f"'DIR/{WEIGHTS[0]}')"
)
# Settings of blocks and pools that are not read, with the values that leave them out.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "attentional_pool": (False, ""),
    "block_type": ("default",),
    "embed_cls": (False,),
    "qk_norm": (False,),
    "scale_attn": (False,),
    "scale_attn_inner": (False,),
    "scale_fc": (False,),
    "scale_heads": (False,),
    "scaled_cosine_attn": (False,),
    "tokenizer_mode": ("",),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """One model of open_clip.

    Attributes:
      directory: of its files.
      model: `model_cfg`.
      vision, text: its sections for the two towers.
      preprocessing: `preprocess_cfg`.
    """

    directory: Path
    model: Fields
    vision: Fields
    text: Fields
    preprocessing: Fields

    def tensors(self) -> Tensors:
        """Its tensors.

        Raises:
          UserError: there are none, or in a pickled file.
        """
        if not any((self.directory / name).is_file() for name in WEIGHTS):
            pickled = sorted(p.name for p in self.directory.iterdir() if p.suffix in hub.PICKLED)
            if pickled and not any(self.directory.glob("*.safetensors")):
                raise UserError(f"{self.directory} holds its weights in {pickled[0]}, {_CONVERT}")
        return merge.open_weights(self.directory, WEIGHTS)


def read(directory: Path) -> Description:
    """The description in a directory.

    Raises:
      UserError: no such file, no JSON, a section of another type, or a model of another kind.
    """
    label = str(directory / FILE)
    whole = Fields(sources.read_json(directory / FILE), label, directory=directory)
    model = _section(whole, "model_cfg")
    if model.values.get("multimodal_cfg"):
        raise model.error("'multimodal_cfg' makes this a CoCa, which is not read")
    return Description(
        directory=directory,
        model=model,
        vision=_section(model, "vision_cfg"),
        text=_section(model, "text_cfg"),
        preprocessing=_section(whole, "preprocess_cfg", needed=False),
    )


def check(fields: Fields) -> None:
    """Raises UserError where the section of a tower makes it of a kind that is not read."""
    for key, plain in _PLAIN.items():
        value = fields.values.get(key)
        if value is not None and value not in plain:
            raise fields.error(f"{key!r} is {value!r}, which is not read")


def _section(fields: Fields, key: str, *, needed: bool = True) -> Fields:
    values = fields.values.get(key)
    values = {} if values is None and not needed else values
    if not isinstance(values, Mapping):
        raise fields.error(f"{key!r} is {type(values).__name__}; write an object")
    label = f"{fields.label}, section {key!r}"
    return Fields(values, label, parent=fields.values, directory=fields.directory)


def activation(described: Description, fields: Fields) -> str:
    """The activation of the MLPs of one of open_clip's own towers."""
    options = _section(fields, "act_kwargs", needed=False)
    if described.model.flag("quick_gelu", False):
        return "quick_gelu"
    tanh = options.choice("approximate", ("none", "tanh"), "none") == "tanh"
    return "gelu_pytorch_tanh" if tanh else "gelu"


def norm_eps(fields: Fields) -> float:
    """The epsilon of the norms of one of open_clip's own towers."""
    return _section(fields, "norm_kwargs", needed=False).number("eps", 1e-5)
