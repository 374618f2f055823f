"""The text towers in big_vision's .npz files of two towers: LiT's BERT, and its own transformer.

LiT-B16B and LiT-L16L hold flaxformer's BERT under `txt/BertEncoder_0` (big_vision
`models/proj/flaxformer/bert.py`, flaxformer `bert/testdata/model_param_shapes.json`); the small
LiT models and SigLIP hold `models/proj/image_text/text_transformer.py`, unrolled or scanned. GELU
is flax's in both, which is the approximate one. The files have no tokenizer: it lies beside them
(`prepare`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ape_jax.errors import UserError
from ape_jax.towers.files import sources
from ape_jax.towers.files.names import LEAD1, NameTable, Rule, Shape, Tensors
from ape_jax.towers.text import token_files, tokens
from ape_jax.towers.text.transformer import TextConfig
from ape_jax.towers.vision.big_vision import attention_rules, pair

PREFIXES = ("params/txt/", "txt/", "opt/target/txt/")
_IGNORE = (
    r"(params/|opt/target/)?(img/.*|t|b)",
    r"(params/|opt/target/)?txt/head/(kernel|bias)",
    r"opt/state/.*",
)
# What LiT's models read of a text (vision_transformer `configs/models.py`): BERT has room for 512.
_LIT_LENGTH = 16


def _bert() -> NameTable:
    layer = "encoder_block/layer_sequence/layers_{i}"
    rules = [
        Rule("embedder/embedders_token_ids/embedding", "embed/token"),
        Rule("embedder/embedders_position_ids/embedding", "embed/position"),
        Rule("embedder/embedders_segment_ids/embedding", "embed/type"),
        *pair("layer_norm", "embed/norm", "scale"),
        *pair(f"{layer}/attention_block/layer_norm", "blocks/norm1", "scale"),
        *pair(f"{layer}/mlp_block/layer_norm", "blocks/norm2", "scale"),
    ]
    for file, path in (
        *((f"attention_block/attention_layer/{n}", f"attention/{n}") for n in _QKV),
        ("attention_block/dense_layer", "attention/out"),
        ("mlp_block/mlp/dense_layer", "mlp/fc1"),
        ("mlp_block/dense_layer", "mlp/fc2"),
    ):
        rules += pair(f"{layer}/{file}", f"blocks/{path}", "kernel")
    prefixes = tuple(f"{prefix}BertEncoder_0/" for prefix in PREFIXES)
    return NameTable(rules=tuple(rules), prefixes=prefixes, ignore=_IGNORE)


def _transformer(block: str) -> NameTable:
    block, stacked = f"Encoder_0/{block}", "{i}" not in block
    return NameTable(
        rules=(
            Rule("Embed_0/embedding", "embed/token"),
            Rule("pos_embedding", "embed/position", LEAD1),
            *attention_rules(
                f"{block}/MultiHeadDotProductAttention_0", "blocks/attention", stacked
            ),
            *pair(f"{block}/LayerNorm_0", "blocks/norm1", "scale", stacked),
            *pair(f"{block}/LayerNorm_1", "blocks/norm2", "scale", stacked),
            *pair(f"{block}/MlpBlock_0/Dense_0", "blocks/mlp/fc1", "kernel", stacked),
            *pair(f"{block}/MlpBlock_0/Dense_1", "blocks/mlp/fc2", "kernel", stacked),
            *pair("Encoder_0/encoder_norm", "norm", "scale"),
        ),
        prefixes=PREFIXES,
        ignore=(*_IGNORE, rf"({'|'.join(PREFIXES)}){_TWICE}"),
    )


_QKV = ("query", "key", "value")
# Some old files add positions twice, by mistake (`text_transformer.load`).
_TWICE = "Encoder_0/pos_embedding"
BERT_TABLES = (_bert(),)
TRANSFORMER_TABLES = (_transformer("encoderblock_{i}"), _transformer("encoderblock"))


class Positions:
    """Tensors of which two position tables are summed into one; see names.Tensors."""

    def __init__(self, whole: Tensors):
        self._whole, self.label, self.shapes = whole, whole.label, whole.shapes

    def read(self, name: str) -> np.ndarray:
        """One tensor, with the second table where it is the positions."""
        prefix = name.removesuffix("pos_embedding")
        array = self._whole.read(name)
        if name != prefix and (again := prefix + _TWICE) in self.shapes:
            array = array + self._whole.read(again)
        return array


def read_config(tensors: Tensors) -> tuple[TextConfig, tuple[NameTable, ...]]:
    """The config of the text tower in an .npz, from the shapes of its tensors, and its tables.

    Raises:
      UserError: it holds no text tower, or one of another kind.
    """
    prefix = next((p for p in PREFIXES if any(n.startswith(p) for n in tensors.shapes)), None)
    if prefix is None:
        raise UserError(
            f"{tensors.label} holds an image tower and no text tower (no tensor 'txt/...'); write "
            "kind='image', or a file of two towers such as LiT's"
        )
    shapes = {n.removeprefix(prefix): s for n, s in tensors.shapes.items() if n.startswith(prefix)}
    if any(n.startswith("BertEncoder_0/") for n in shapes):
        return _read_bert(tensors.label, shapes), BERT_TABLES
    return _read_transformer(tensors.label, shapes), TRANSFORMER_TABLES


def _shape(label: str, shapes: Mapping[str, Shape], pattern: str, ndim: int) -> Shape:
    fits = sorted(n for n in shapes if re.fullmatch(pattern, n))
    if not fits or len(shapes[fits[0]]) != ndim or 0 in shapes[fits[0]]:
        found = f"{fits[0]} of shape {list(shapes[fits[0]])}" if fits else "none"
        raise UserError(
            f"{label}: expected a tensor like txt/{pattern} with {ndim} axes, found {found}; this "
            "is no text tower of LiT or SigLIP"
        )
    return shapes[fits[0]]


def _depth(shapes: Mapping[str, Shape], pattern: str) -> int:
    return len({m[1] for n in shapes if (m := re.match(pattern, n))})


def _read_bert(label: str, shapes: Mapping[str, Shape]) -> TextConfig:
    inner = "BertEncoder_0/"
    layer = f"{inner}encoder_block/layer_sequence/layers_0/"
    vocabulary, width = _shape(label, shapes, f"{inner}embedder/embedders_token_ids/embedding", 2)
    positions, _ = _shape(label, shapes, f"{inner}embedder/embedders_position_ids/embedding", 2)
    types, _ = _shape(label, shapes, f"{inner}embedder/embedders_segment_ids/embedding", 2)
    _, mlp_width = _shape(label, shapes, f"{layer}mlp_block/mlp/dense_layer/kernel", 2)
    return TextConfig(
        family="bert",
        width=width,
        depth=_depth(shapes, r".*/layers_(\d+)/"),
        heads=max(1, width // 64),  # Joined in the file; 64 wide in every BERT that LiT has.
        mlp_width=mlp_width,
        pooling="cls",
        activation="gelu_new",
        norm_eps=1e-12,
        vocab_size=vocabulary,
        positions=positions,
        types=types,
        max_length=min(_LIT_LENGTH, positions),
    )


def _read_transformer(label: str, shapes: Mapping[str, Shape]) -> TextConfig:
    vocabulary, width = _shape(label, shapes, "Embed_0/embedding", 2)
    _, positions, _ = _shape(label, shapes, "pos_embedding", 3)
    scanned = any(n.startswith("Encoder_0/encoderblock/") for n in shapes)
    block, extra = ("encoderblock", 1) if scanned else ("encoderblock_0", 0)
    block = f"Encoder_0/{block}"
    query = _shape(label, shapes, f"{block}/MultiHeadDotProductAttention_0/query/kernel", 3 + extra)
    fc1 = _shape(label, shapes, f"{block}/MlpBlock_0/Dense_0/kernel", 2 + extra)
    return TextConfig(
        family="siglip_text",
        width=width,
        depth=query[0] if scanned else _depth(shapes, r"Encoder_0/encoderblock_(\d+)/"),
        heads=query[-2],
        mlp_width=fc1[-1],
        pooling="last",
        activation="gelu_pytorch_tanh",
        norm_eps=1e-6,
        vocab_size=vocabulary,
        positions=positions,
        embed_norm=False,
        max_length=positions,
        attends_padding=True,
    )


def beside(path: Path) -> dict[str, Path]:
    """Paths at which the tokenizer of an .npz may lie, by its kind; it need not exist."""
    return {
        "tokenizer": path.with_suffix(".tokenizer.json"),
        "vocabulary": path.with_suffix(".txt"),
    }


def prepare(path: Path, config: TextConfig, options: Mapping[str, Any]) -> tokens.TextPrepare:
    """The tokenizer beside an .npz, framed as the model was trained (big_vision `pp/ops_text.py`).

    BERT's texts begin with [CLS] and have no [SEP]; those of the transformer end with </s>, with
    which they are filled up.

    Args:
      path: of the .npz.
      config: of its text tower.
      options: of `towers.load`.

    Raises:
      UserError: there is none, or it lacks what texts begin or end with.
    """
    files = beside(path)
    if sources.is_there(files["tokenizer"]):
        label, backend = files["tokenizer"], token_files.json_backend(files["tokenizer"])
    elif sources.is_there(files["vocabulary"]) and config.family == "bert":
        label, backend = files["vocabulary"], token_files.vocabulary_backend(files["vocabulary"])
    else:
        wanted = [str(f.name) for f in files.values()][: 2 if config.family == "bert" else 1]
        raise UserError(
            f"{path} holds no tokenizer; put the one that its text tower was trained with beside "
            f"it, as {' (tokenizers library) or '.join(wanted)}"
            + (" (BERT's vocabulary)" if len(wanted) > 1 else "")
        )
    backend.no_truncation()
    backend.no_padding()
    token = "[CLS]" if config.family == "bert" else "</s>"
    index = backend.token_to_id(token)
    if index is None:
        raise UserError(f"{label}: the tokenizer has no {token}, which every text of {path} has")
    bert = config.family == "bert"
    return tokens.make_prepare(
        backend,
        str(label),
        vocab_size=config.vocab_size,
        before=(index,) if bert else (),
        after=() if bert else (index,),
        pad_id=0 if bert else index,
        max_length=config.max_length,
        prefix=options.get("prefix", ""),
        fills=config.attends_padding,
    )
