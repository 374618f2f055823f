"""BERT (arXiv 1810.04805): post-norm blocks after normed embeddings.

The pooler and language model heads are left out: a tower's output is its last hidden state.
"""

from __future__ import annotations

from ape_jax.towers.family import DENSE, Family, Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import NameTable, Rule, linear, norm
from ape_jax.towers.text import family
from ape_jax.towers.text.transformer import TextConfig, TextTower

EMBEDDINGS = (
    Rule("embeddings.word_embeddings.weight", "embed/token"),
    Rule("embeddings.position_embeddings.weight", "embed/position"),
    Rule("embeddings.token_type_embeddings.weight", "embed/type"),
    *norm("embeddings.LayerNorm", "embed/norm"),
)
# Spellings of TensorFlow's BERT, which old files still have.
RENAMES = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))
# Buffers, the pooler, and the heads of transformers' task classes.
IGNORE = (
    r"(.+\.)?embeddings\.(position_ids|token_type_ids)",
    r"(\w+\.)?pooler\.dense\.(weight|bias)",
    r"(cls|lm_head|classifier|pre_classifier|qa_outputs)\..+",
    r"vocab_(transform|layer_norm|projector)\.(weight|bias)",
)

_LAYER = "encoder.layer.{i}"
NAMES = NameTable(
    rules=(
        *EMBEDDINGS,
        *linear(f"{_LAYER}.attention.self.query", "blocks/attention/query"),
        *linear(f"{_LAYER}.attention.self.key", "blocks/attention/key"),
        *linear(f"{_LAYER}.attention.self.value", "blocks/attention/value"),
        *linear(f"{_LAYER}.attention.output.dense", "blocks/attention/out"),
        *norm(f"{_LAYER}.attention.output.LayerNorm", "blocks/norm1"),
        *linear(f"{_LAYER}.intermediate.dense", "blocks/mlp/fc1"),
        *linear(f"{_LAYER}.output.dense", "blocks/mlp/fc2"),
        *norm(f"{_LAYER}.output.LayerNorm", "blocks/norm2"),
    ),
    prefixes=("", "bert.", "roberta."),
    ignore=IGNORE,
    renames=RENAMES,
)


def _parse(fields: Fields) -> TextConfig:
    positions = fields.integer("max_position_embeddings", 512)
    return TextConfig(
        family="bert",
        types=fields.integer("type_vocab_size", 2, minimum=0),
        **family.encoder_fields(fields),
        **family.text_fields(fields, positions=positions, pooling="cls"),
    )


BERT = Family(
    name="bert",
    kind="text",
    title="BERT",
    models="MiniLM, SimCSE, E5, BGE",
    model_types={"bert": None},
    parse=_parse,
    module=TextTower,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    adapters=DENSE,
    torch=TorchClass(
        describe=lambda c, pooling: family.describe(c, "bert", type_vocab_size=c.types),
        table=lambda config: NAMES,
        pooler=PoolerOutput(pooling="cls", dense=True),
    ),
)
