"""Common parts of text families: config keys, load options, the tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError
from ape_jax.towers.family import Fields
from ape_jax.towers.files import reading, sentence
from ape_jax.towers.text import token_files, tokens
from ape_jax.towers.text.head import check_activations
from ape_jax.towers.text.transformer import TextConfig
from ape_jax.towers.tower import TowerConfig

# One token of text between two special ones.
_LEAST_LENGTH = 3


_BERT = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


def encoder_fields(fields: Fields, **defaults: Any) -> dict[str, Any]:
    """The keys that BERT and its kin share; their defaults are BERT's where none are given."""
    if fields.values.get("position_embedding_type", "absolute") != "absolute":
        found = fields.values["position_embedding_type"]
        raise fields.unsupported(
            f"position_embedding_type is {found!r}; only 'absolute' is supported"
        )
    if fields.flag("is_decoder", False):
        raise fields.unsupported("is_decoder is true; only encoders are supported")
    return encoder_sizes(fields, **defaults)


def encoder_sizes(fields: Fields, **defaults: Any) -> dict[str, Any]:
    """`encoder_fields` without the keys that make another model of a BERT."""
    default = _BERT | defaults
    return {
        "vocab_size": fields.integer("vocab_size", default["vocab_size"]),
        "width": fields.integer("hidden_size", default["hidden_size"]),
        "depth": fields.integer("num_hidden_layers", default["num_hidden_layers"]),
        "heads": fields.integer("num_attention_heads", default["num_attention_heads"]),
        "mlp_width": fields.integer("intermediate_size", default["intermediate_size"]),
        "activation": fields.activation("hidden_act", default["hidden_act"]),
        "norm_eps": fields.number("layer_norm_eps", default["layer_norm_eps"]),
    }


def describe(config: TextConfig, model_type: str, **more: Any) -> dict[str, Any]:
    """The way back from `encoder_fields`: a config.json for transformers."""
    padding = {} if config.padding_idx is None else {"pad_token_id": config.padding_idx}
    return {
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.positions,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        **more,
        **padding,
        "num_hidden_layers": config.depth,
    }


def text_fields(
    fields: Fields,
    *,
    positions: int,
    padding_idx: int | None = None,
    pooling: str,
    trained: bool = False,
) -> dict[str, Any]:
    """The part of a TextConfig that depends on the number of positions, and its pooling.

    Args:
      fields: of the config.json.
      positions: rows of the position table.
      padding_idx: as for `TextConfig`.
      pooling: how towers of the family are usually read; `with_modules` overrules it.
      trained: whether every tower of the family was trained with it, as CLIP's are.
    """
    longest = positions - (0 if padding_idx is None else padding_idx + 1)
    if longest < _LEAST_LENGTH:
        raise fields.error(f"there are positions for {longest} tokens; a text tower needs more")
    own = {"positions": positions, "padding_idx": padding_idx}
    own |= {"pooling": pooling, "pooling_known": trained}
    if fields.directory is None:
        return {**own, "max_length": longest}
    length = token_files.max_length(fields.directory, least=_LEAST_LENGTH, positions=longest)
    return {**own, "max_length": length}


def with_modules(config: TextConfig, directory: Path) -> tuple[TextConfig, sentence.Modules | None]:
    """The config with the pooling that sentence-transformers' files say, and what they say.

    Args:
      config: as the family reads it.
      directory: of the config.json.

    Raises:
      UserError: as `sentence.find`.
    """
    modules = sentence.find(directory)
    if modules is None or not modules.pooling:
        return config, modules
    head = modules.head(config.width)
    if head is not None:
        check_activations(head, modules.root)
    own = modules.pooling if head is None else "head"
    changes = {"pooling": own, "pooling_known": True, "head": head, "unit": modules.unit}
    changes["dim"] = modules.dim
    return dataclasses.replace(config, **changes), modules


def without_prompt(config: TowerConfig, prepare: Any) -> TowerConfig:
    """The config whose head leaves out the tokens of the prefix that `prepare` puts on texts."""
    head = getattr(config, "head", None)
    if not isinstance(head, sentence.Head) or not head.without_prompt:
        return config
    return dataclasses.replace(config, head=dataclasses.replace(head, skip=prepare.prompt_length()))


def adapt(config: TextConfig, options: Mapping[str, Any]) -> TextConfig:
    """Apply the options of `towers.load`."""
    if "image_size" in options:
        raise UserError(
            f"image_size is {options['image_size']!r}, which a text tower ({config.family}) does "
            "not have; leave it out"
        )
    length = options.get("max_length", config.max_length)
    if not isinstance(length, int) or not _LEAST_LENGTH <= length <= config.longest:
        raise UserError(
            f"max_length is {length!r}; this {config.family} tower takes lengths from "
            f"{_LEAST_LENGTH} to {config.longest}"
        )
    if not isinstance(options.get("prefix", ""), str):
        raise UserError(f"prefix is {options['prefix']!r}; write a text such as 'query: '")
    return dataclasses.replace(config, max_length=length)


def prepare(
    directory: Path | None, config: TextConfig, options: Mapping[str, Any]
) -> tokens.TextPrepare:
    """The tower's tokenizer; see tokens.load_prepare."""
    if directory is None:
        raise UserError(
            f"a {config.family} tower without a directory has no tokenizer; "
            "name a directory that holds config.json, the weights and tokenizer.json"
        )
    prepared = tokens.load_prepare(
        directory,
        vocab_size=config.vocab_size,
        max_length=config.max_length,
        prefix=options.get("prefix"),
        fills=config.attends_padding,
    )
    if not prepared.fills:
        _say_where_texts_depend_on_others(directory, config, prepared.pads_left)
    return prepared


def _say_where_texts_depend_on_others(directory: Path, config: TextConfig, pads_left: bool) -> None:
    """Says what makes a library's vector of a text depend on the texts encoded with it."""
    if pads_left and config.position_table and config.padding_idx is None:
        reading.assumed(
            "padding_side is left, which would move the positions of a text by the length of the "
            "others in its batch; here its first token has position 0"
        )
    if not token_files.masks_padding(directory):
        reading.assumed(
            "model_input_names has no attention_mask, without which padding would be read like "
            "words; here it is masked"
        )
