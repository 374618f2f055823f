"""Text towers of open_clip: its own transformer, or one of transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError
from ape_jax.towers import family as families
from ape_jax.towers.family import FAMILIES, Fields
from ape_jax.towers.files import hub, sources
from ape_jax.towers.files.names import NameTable, Rule, Shape, Tensors, norm
from ape_jax.towers.files.sections import Prefixed
from ape_jax.towers.layout import Found
from ape_jax.towers.open_clip import tokenizer
from ape_jax.towers.open_clip.description import Description, activation, norm_eps
from ape_jax.towers.open_clip.image import BLOCKS
from ape_jax.towers.text.clip.clip_text import ClipTextConfig
from ape_jax.towers.text.transformer import TextConfig

HF = "text.transformer."
CUSTOM = "text."
NAMES = NameTable(
    rules=(
        Rule("token_embedding.weight", "embed/token"),
        Rule("positional_embedding", "embed/position"),
        *BLOCKS,
        *norm("ln_final", "norm"),
    ),
    ignore=(r"text_projection(\..*)?", "attn_mask", r"visual\..*", r"logit_(scale|bias)"),
)
_POOLERS = {
    "mean_pooler": "mean",
    "cls_pooler": "cls",
    "cls_last_hidden_state_pooler": "cls",
}
_LARGEST = 2  # As `eos_id` of a CLIP text tower: the largest id of a text, where `argmax` pools.


def prefix(shapes: Mapping[str, Shape]) -> str:
    """What stands before the names of the text tower: `CustomTextCLIP` has it under `text.`."""
    return CUSTOM if any(name.startswith(CUSTOM) for name in shapes) else ""


def find(described: Description) -> Found:
    """The text tower of a model.

    Raises:
      UserError: it is of a kind that is not read, or something is said nowhere.
    """
    tensors = described.tensors()
    if described.text.values.get("hf_model_name") is not None:
        return _of_transformers(described, tensors)
    own = prefix(tensors.shapes)
    config = _config(described)
    return Found(
        family=FAMILIES[config.family],
        config=config,
        tables=(NAMES,),
        tensors=Prefixed(tensors, own) if own else tensors,
        prepare=partial(tokenizer.prepare, described),
    )


def _config(described: Description) -> TextConfig:
    fields = described.text
    if fields.values.get("ls_init_value") is not None:
        raise fields.error("'ls_init_value' puts LayerScale into the text tower, which is not read")
    width, length = fields.integer("width", 512), fields.integer("context_length", 77)
    pool = fields.choice("pool_type", ("argmax", "eos", "last"), "argmax")
    shared = {
        "width": width,
        "depth": fields.integer("layers", 12),
        "heads": fields.integer("heads", 8),
        "mlp_width": int(width * fields.number("mlp_ratio", 4.0)),
        "activation": activation(described, fields),
        "norm_eps": norm_eps(fields),
        "vocab_size": fields.integer("vocab_size", 49408),
        "positions": length,
        "max_length": length,
        "pooling": "last",
    }
    if fields.flag("no_causal_mask", False):
        if pool != "last":
            raise fields.error(
                f"'no_causal_mask' is true and 'pool_type' is {pool!r}, so padding is attended to "
                "and not pooled, which is not read"
            )
        # Like SigLIP's: padding is a part of the text, and the last position is pooled.
        return TextConfig(**shared, family="siglip_text", embed_norm=False, attends_padding=True)
    if pool == "last":
        raise fields.error(
            "'pool_type' is 'last' without 'no_causal_mask', so padding is pooled, which is not "
            "read"
        )
    if pool == "argmax":
        return ClipTextConfig(**shared, family="clip_text", eos_id=_LARGEST)
    end = fields.integer("eos_id", 2, minimum=0)
    return ClipTextConfig(**shared, family="metaclip_2_text", eos_id=end)


def _of_transformers(described: Description, tensors: Tensors) -> Found:
    fields = described.text
    family, section = families.find(*_hf_config(described), "text", described.directory)
    config: Any = family.parse(section)
    length = fields.integer("context_length", 77)
    if length > config.longest:
        raise fields.error(
            f"'context_length' is {length}; the tower has {config.longest} positions"
        )
    config = dataclasses.replace(config, max_length=length, pooling=pooling_of_transformers(fields))
    return Found(
        family=family,
        config=config,
        tables=family.tables,
        tensors=Prefixed(tensors, HF),
        prepare=partial(tokenizer.prepare, described),
    )


def pooling_of_transformers(fields: Fields) -> str:
    """The pooling of a tower of transformers in open_clip."""
    return _POOLERS[fields.choice("hf_pooler_type", _POOLERS, "mean_pooler")]


def _hf_config(described: Description) -> tuple[Mapping[str, Any], str]:
    """The config.json of a tower of transformers, and where it is: beside it, or on the hub."""
    fields = described.text
    name = fields.values["hf_model_name"]
    if not isinstance(name, str):
        raise fields.error(f"'hf_model_name' is {name!r}; write a repository's name")
    beside = described.directory / "config.json"
    for path in (beside, Path(name) / "config.json"):
        if path.is_file():
            return sources.read_json(path), str(path)
    try:
        path = hub.file(name, "config.json")
    except UserError as error:
        raise UserError(f"{error}; or put it beside {fields.label.split(',')[0]}") from error
    return sources.read_json(path), str(path)
