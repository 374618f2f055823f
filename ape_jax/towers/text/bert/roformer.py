"""RoFormer (arXiv 2104.09864): BERT whose queries and keys are turned in place of a position table.

Neighbouring channels are turned together, by the angles of the paper.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np

from ape_jax.nn.positions import rotary_frequencies
from ape_jax.towers.family import DENSE, Arrays, Family, Fields, TorchClass
from ape_jax.towers.files.names import Rule, linear
from ape_jax.towers.text import family
from ape_jax.towers.text.bert import bert
from ape_jax.towers.text.bert.electra import PROJECTION
from ape_jax.towers.text.transformer import Span, TextConfig, TextTower, block_config

_THETA = 10000.0
_TABLE = "encoder.embed_positions.weight"
"""Sines and cosines, which files hold and nothing changes: computed here, and written."""


def _parse(fields: Fields) -> TextConfig:
    if fields.flag("rotary_value", False):
        raise fields.unsupported("rotary_value is true; only false is supported")
    shared = family.encoder_fields(fields, vocab_size=50000)
    width = fields.integer("embedding_size", shared["width"])
    return TextConfig(
        family="roformer",
        types=fields.integer("type_vocab_size", 2, minimum=0),
        embed_width=None if width == shared["width"] else width,
        position_table=False,
        **shared,
        **family.text_fields(
            fields, positions=fields.integer("max_position_embeddings", 1536), pooling="cls"
        ),
    )


NAMES = dataclasses.replace(
    bert.NAMES,
    rules=(
        *bert.NAMES.rules,
        *linear("embeddings_project", "embed/projection"),
        Rule(_TABLE, "turns"),
    ),
    prefixes=("", "roformer."),
    ignore=(
        *bert.IGNORE,
        rf"(roformer\.)?{re.escape(_TABLE)}",
        r"sequence_summary\..+",
    ),
)


def _module(config: TextConfig, **options: Any) -> TextTower:
    frequencies = rotary_frequencies(config.width // config.heads, _THETA)
    return TextTower(
        config,
        block_config(config, norms="after", interleaved=True),
        spans=(Span(frequencies=tuple(frequencies.tolist())),),
        **options,
    )


def _describe(config: TextConfig, pooling: str) -> dict[str, Any]:
    width = config.width if config.embed_width is None else config.embed_width
    more = {"type_vocab_size": max(config.types, 1), "embedding_size": width}
    return family.describe(config, "roformer", rotary_value=False, **more)


def _computed(config: TextConfig) -> Arrays:
    width = config.width // config.heads
    powers = _THETA ** (np.arange(0, width, 2) / width)
    angles = np.arange(config.positions)[:, None] / powers
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    return {"turns": table}


ROFORMER = Family(
    name="roformer",
    kind="text",
    title="RoFormer",
    models="junnyu/roformer_chinese_base, junnyu/roformer_chinese_sim_char_base",
    model_types={"roformer": None},
    parse=_parse,
    module=_module,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    computed=_computed,
    groups=PROJECTION,
    adapters=DENSE,
    torch=TorchClass(describe=_describe, table=lambda config: NAMES, complete=bert.complete),
)
