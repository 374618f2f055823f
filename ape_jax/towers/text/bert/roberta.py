"""RoBERTa (arXiv 1907.11692) and XLM-R: BERT whose positions count from the padding id on.

CamemBERT and data2vec's text model (arXiv 2202.03555) are RoBERTas of other weights.
"""

from __future__ import annotations

from ape_jax.towers.family import DENSE, Family, Fields, PoolerOutput, TorchClass
from ape_jax.towers.text import family
from ape_jax.towers.text.bert.bert import NAMES
from ape_jax.towers.text.transformer import TextConfig, TextTower


def _parse(fields: Fields) -> TextConfig:
    # RoBERTa's <s> saw no sentence task in pretraining, so its mean is the better default.
    vocab_size = 50265 if fields.values.get("model_type") == "roberta" else 30522
    return TextConfig(
        family="roberta",
        types=fields.integer("type_vocab_size", 2),
        **family.encoder_fields(fields, vocab_size=vocab_size),
        **family.text_fields(
            fields,
            positions=fields.integer("max_position_embeddings", 512),
            padding_idx=fields.integer("pad_token_id", 1, minimum=0),
            pooling="mean",
        ),
    )


ROBERTA = Family(
    name="roberta",
    kind="text",
    title="RoBERTa and XLM-R",
    models="multilingual E5, BGE-M3, CamemBERT, data2vec-text",
    model_types={"roberta": None, "xlm-roberta": None, "camembert": None, "data2vec-text": None},
    parse=_parse,
    module=TextTower,
    tables=(NAMES,),
    prepare=family.prepare,
    adapt=family.adapt,
    adapters=DENSE,
    torch=TorchClass(
        describe=lambda c, pooling: family.describe(c, "roberta", type_vocab_size=c.types),
        table=lambda config: NAMES,
        pooler=PoolerOutput(pooling="cls", dense=True),
    ),
)
