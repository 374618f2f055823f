"""The text tower of AltCLIP (arXiv 2211.06679): XLM-R with one more norm after its last block.

The two linear maps behind it, to its teacher's width and to the shared space, are a head, and no
part of the tower.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from ape_jax.towers.family import DENSE, Family, Fields
from ape_jax.towers.files.names import NameTable, norm
from ape_jax.towers.text import family
from ape_jax.towers.text.bert import bert
from ape_jax.towers.text.transformer import TextConfig, TextTower


def _parse(fields: Fields) -> TextConfig:
    sizes = {"vocab_size": 250002, "hidden_size": 1024, "intermediate_size": 4096}
    depth = {"num_hidden_layers": 24, "num_attention_heads": 16, "layer_norm_eps": 1e-5}
    return TextConfig(
        family="altclip_text",
        types=fields.integer("type_vocab_size", 1),
        **family.encoder_fields(fields, **sizes, **depth),
        **family.text_fields(
            fields,
            positions=fields.integer("max_position_embeddings", 514),
            padding_idx=fields.integer("pad_token_id", 1, minimum=0),
            pooling="cls",
            trained=True,
        ),
    )


NAMES = NameTable(
    rules=(
        *(dataclasses.replace(r, file=f"roberta.{r.file}") for r in bert.NAMES.rules),
        *norm("pre_LN", "norm"),
    ),
    prefixes=("", "text_model."),
    ignore=(*bert.IGNORE, r"(text_model\.)?transformation\.(weight|bias)"),
    # What transformers 5 writes of the text tower alone.
    renames=((r"^roberta\.encoder\.layers\.", "roberta.encoder.layer."),),
)

ALTCLIP_TEXT = Family(
    name="altclip_text",
    kind="text",
    title="AltCLIP",
    models="BAAI/AltCLIP, BAAI/AltCLIP-m18",
    model_types={"altclip": "text_config", "altclip_text_model": None},
    parse=_parse,
    module=partial(TextTower, last_norm=True),
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    adapters=DENSE,
    torch="has a norm after its last block, which no class that AutoModel makes of a text has",
)
