"""BERT (arXiv 1810.04805): post-norm blocks after normed embeddings.

ERNIE (arXiv 1904.09223) adds the first row of a table of tasks; Chinese-CLIP's text tower (arXiv
2211.01335) is a BERT in a file of two towers. The pooler and language model heads are left out: a
tower's output is its last hidden state.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ape_jax.towers.family import DENSE, Arrays, Family, Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import NameTable, Rule, linear, norm
from ape_jax.towers.text import family
from ape_jax.towers.text.transformer import TextConfig, TextTower

EMBEDDINGS = (
    Rule("embeddings.word_embeddings.weight", "embed/token"),
    Rule("embeddings.position_embeddings.weight", "embed/position"),
    Rule("embeddings.token_type_embeddings.weight", "embed/type"),
    Rule("embeddings.task_type_embeddings.weight", "embed/task"),
    *norm("embeddings.LayerNorm", "embed/norm"),
)
# Spellings of TensorFlow's BERT, which old files still have.
RENAMES = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))
# Buffers, the pooler, the heads of transformers' task classes, and the other tower of two.
IGNORE = (
    r"(.+\.)?embeddings\.(position_ids|token_type_ids)",
    r"(\w+\.)?pooler\.dense\.(weight|bias)",
    r"(cls|lm_head|classifier|pre_classifier|qa_outputs)\..+",
    r"vocab_(transform|layer_norm|projector)\.(weight|bias)",
    r"vision_model\..+",
    r"(visual|text)_projection\.weight",
    r"logit_scale",
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
    prefixes=("", "bert.", "roberta.", "ernie.", "data2vec_text.", "text_model."),
    ignore=IGNORE,
    renames=RENAMES,
)


def _parse(fields: Fields) -> TextConfig:
    positions = fields.integer("max_position_embeddings", 512)
    tasks = fields.integer("task_type_vocab_size", 3)
    return TextConfig(
        family="bert",
        types=fields.integer("type_vocab_size", 2, minimum=0),
        task_types=tasks if fields.flag("use_task_id", False) else 0,
        **family.encoder_fields(fields),
        **family.text_fields(
            fields,
            positions=positions,
            pooling="cls",
            trained=str(fields.parent.get("model_type")).startswith("chinese_clip"),
        ),
    )


def describe(config: TextConfig, pooling: str) -> dict[str, Any]:
    """Its config.json for transformers: ERNIE's where there is a table of tasks."""
    tasks = {"use_task_id": True, "task_type_vocab_size": config.task_types}
    kind, more = ("ernie", tasks) if config.task_types else ("bert", {})
    # Transformers' class has a table of types, whatever the tower has.
    return family.describe(config, kind, type_vocab_size=max(config.types, 1), **more)


def complete(config: TextConfig, arrays: Arrays) -> Arrays:
    """The parameters with a table of types, of zeros where the tower has none."""
    width = config.width if config.embed_width is None else config.embed_width
    return {"embed/type": np.zeros((1, width), np.float32), **arrays}


BERT = Family(
    name="bert",
    kind="text",
    title="BERT",
    models="MiniLM, SimCSE, E5, BGE, ERNIE, Chinese-CLIP",
    model_types={
        "bert": None,
        "ernie": None,
        "chinese_clip": "text_config",
        "chinese_clip_text_model": None,
    },
    parse=_parse,
    module=TextTower,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    groups=((r"embed/task", "token embedding"),),
    adapters=DENSE,
    torch=TorchClass(
        describe=describe,
        table=lambda config: NAMES,
        pooler=PoolerOutput(pooling="cls", dense=True),
        complete=complete,
    ),
)
