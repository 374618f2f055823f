"""The text tower of BLIP (arXiv 2201.12086): BERT without token types.

It is the encoder that reads a text alone. The attention to an image, in the same blocks of files,
and the decoder are no part of the tower.
"""

from __future__ import annotations

import dataclasses

from ape_jax.towers.family import DENSE, Family, Fields, PoolerOutput, TorchClass
from ape_jax.towers.text import family
from ape_jax.towers.text.bert import bert
from ape_jax.towers.text.transformer import TextConfig, TextTower


def _parse(fields: Fields) -> TextConfig:
    fields.flag("is_decoder", True)  # Whether blocks attend to an image, too; never causal here.
    return TextConfig(
        family="blip_text",
        **family.encoder_sizes(fields, vocab_size=30524, num_attention_heads=8),
        **family.text_fields(
            fields,
            positions=fields.integer("max_position_embeddings", 512),
            pooling="cls",
            trained=True,
        ),
    )


NAMES = dataclasses.replace(
    bert.NAMES,
    prefixes=("", "text_model.", "text_encoder."),
    ignore=(
        *bert.IGNORE,
        r"(.+\.)?encoder\.layer\.\d+\.crossattention\..+",
        r"text_decoder\..+",
        r"(vision|text)_proj\.(weight|bias)",
        r"itm_head\.(weight|bias)",
    ),
)

BLIP_TEXT = Family(
    name="blip_text",
    kind="text",
    title="BLIP",
    models="Salesforce/blip-itm-base-coco",
    model_types={"blip": "text_config", "blip_text_model": None},
    parse=_parse,
    module=TextTower,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    adapters=DENSE,
    torch=TorchClass(
        describe=bert.describe,
        table=lambda config: bert.NAMES,
        pooler=PoolerOutput(pooling="cls", dense=True),
        complete=bert.complete,
    ),
)
