"""ELECTRA (arXiv 2003.10555) and RemBERT (arXiv 2010.12821): BERT with narrower embeddings.

A dense layer leads from the width of the embeddings to that of the blocks. ELECTRA leaves it out
where the two are equal.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ape_jax.towers.family import DENSE, Family, Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import NameTable, linear
from ape_jax.towers.text import family
from ape_jax.towers.text.bert.bert import IGNORE, NAMES, RENAMES, complete
from ape_jax.towers.text.transformer import TextConfig, TextTower

PROJECTION = (
    (r"embed/projection/kernel", "kernel"),
    (r"embed/projection/bias", "bias"),
)
"""`Family.groups` of the dense layer behind narrower embeddings."""


def _electra(fields: Fields) -> TextConfig:
    positions = fields.integer("max_position_embeddings", 512)
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    shared = family.encoder_fields(fields, **sizes)
    width = fields.integer("embedding_size", 128)
    return TextConfig(
        family="electra",
        types=fields.integer("type_vocab_size", 2, minimum=0),
        embed_width=None if width == shared["width"] else width,
        **shared,
        **family.text_fields(fields, positions=positions, pooling="cls"),
    )


def _describe_electra(config: TextConfig, pooling: str) -> dict[str, Any]:
    more = {"type_vocab_size": max(config.types, 1)}
    width = config.width if config.embed_width is None else config.embed_width
    return family.describe(config, "electra", embedding_size=width, **more)


ELECTRA_NAMES = dataclasses.replace(
    NAMES,
    rules=(*NAMES.rules, *linear("embeddings_project", "embed/projection")),
    prefixes=("", "electra."),
    ignore=(
        *IGNORE,
        r"(discriminator|generator)_predictions\..+",
        r"generator_lm_head\..+",
        r"sequence_summary\..+",
    ),
)

ELECTRA = Family(
    name="electra",
    kind="text",
    title="ELECTRA",
    models="google/electra-base-discriminator",
    model_types={"electra": None},
    parse=_electra,
    module=TextTower,
    tables=(ELECTRA_NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    groups=PROJECTION,
    adapters=DENSE,
    torch=TorchClass(
        describe=_describe_electra, table=lambda config: ELECTRA_NAMES, complete=complete
    ),
)


def _rembert(fields: Fields) -> TextConfig:
    positions = fields.integer("max_position_embeddings", 512)
    sizes = {"vocab_size": 250300, "hidden_size": 1152, "intermediate_size": 4608}
    depth = {"num_hidden_layers": 32, "num_attention_heads": 18}
    return TextConfig(
        family="rembert",
        types=fields.integer("type_vocab_size", 2, minimum=0),
        embed_width=fields.integer("input_embedding_size", 256),
        **family.encoder_fields(fields, **sizes, **depth),
        **family.text_fields(fields, positions=positions, pooling="cls"),
    )


def _describe_rembert(config: TextConfig, pooling: str) -> dict[str, Any]:
    more = {"type_vocab_size": max(config.types, 1)}
    return family.describe(config, "rembert", input_embedding_size=config.embed_width, **more)


REMBERT_NAMES = NameTable(
    rules=(*NAMES.rules, *linear("encoder.embedding_hidden_mapping_in", "embed/projection")),
    prefixes=("", "rembert."),
    ignore=IGNORE,
    renames=RENAMES,
)

REMBERT = Family(
    name="rembert",
    kind="text",
    title="RemBERT",
    models="google/rembert",
    model_types={"rembert": None},
    parse=_rembert,
    module=TextTower,
    tables=(REMBERT_NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    groups=PROJECTION,
    adapters=DENSE,
    torch=TorchClass(
        describe=_describe_rembert,
        table=lambda config: REMBERT_NAMES,
        pooler=PoolerOutput(pooling="cls", dense=True),
        complete=complete,
    ),
)
