"""The sizes of well-known encoders, so that a plan needs neither their files nor a network.

What is left out of a config here has the value that the family's config class gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SIZES = {  # width, blocks, heads
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
    "giant": (1536, 40, 24),
    "7b": (4096, 40, 32),
}


def _size(name: str) -> dict[str, int]:
    width, blocks, heads = _SIZES[name]
    return {"hidden_size": width, "num_hidden_layers": blocks, "num_attention_heads": heads}


def _vit(size: str, patch: int, image: int = 224) -> dict[str, Any]:
    inner = 4 * _SIZES[size][0]
    shape = {"patch_size": patch, "image_size": image, "intermediate_size": inner}
    return {"model_type": "vit", **_size(size), **shape}


def _dinov2(size: str) -> dict[str, Any]:
    gated = {"use_swiglu_ffn": True} if size == "giant" else {}
    return {"model_type": "dinov2", **_size(size), "image_size": 518, "patch_size": 14, **gated}


def _dinov3(size: str, inner: int, **more: Any) -> dict[str, Any]:
    shape = {"intermediate_size": inner, "num_register_tokens": 4}
    return {"model_type": "dinov3_vit", **_size(size), **shape, **more}


_GATED = {"use_gated_mlp": True, "hidden_act": "silu"}


def _convnext(model_type: str, width: int, blocks: int) -> dict[str, Any]:
    widths = [width * 2**stage for stage in range(4)]
    return {"model_type": model_type, "hidden_sizes": widths, "depths": [3, 3, blocks, 3]}


def _bert(size: str, words: int, blocks: int = 0, **more: Any) -> dict[str, Any]:
    shape = {"intermediate_size": 4 * _SIZES[size][0], "vocab_size": words}
    found = {"model_type": "bert", **_size(size), **shape, **more}
    return {**found, "num_hidden_layers": blocks or found["num_hidden_layers"]}


def _xlm_r(size: str) -> dict[str, Any]:
    shape = {"max_position_embeddings": 514, "type_vocab_size": 1}
    return _bert(size, 250_002, model_type="xlm-roberta", **shape)


def _deberta_v3(size: str, words: int = 128_100) -> dict[str, Any]:
    own = {"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm"}
    own |= {"share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
    return _bert(size, words, model_type="deberta-v2", type_vocab_size=0, **own)


def _qwen3(width: int, blocks: int, heads: int, inner: int, words: int) -> dict[str, Any]:
    shape = {"hidden_size": width, "num_hidden_layers": blocks, "num_attention_heads": heads}
    more = {"num_key_value_heads": 8, "intermediate_size": inner, "vocab_size": words}
    return {"model_type": "qwen3", **shape, **more, "rope_theta": 1e6}


_EMBEDDING_GEMMA = {
    "model_type": "gemma3_text",
    "vocab_size": 262_144,
    "hidden_size": 768,
    "num_hidden_layers": 24,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "intermediate_size": 1152,
    "max_position_embeddings": 2048,
    "sliding_window": 512,
    "use_bidirectional_attention": True,
}
_MINILM = _bert("small", 30_522, 6, num_attention_heads=12)
_E5_SMALL = _bert("small", 250_037, num_attention_heads=12)

_BEIT = {"model_type": "beit", "use_relative_position_bias": True}

KNOWN: Mapping[str, Mapping[str, Any]] = {
    "demo:vit_s14": _dinov2("small"),
    "demo:minilm": _MINILM,
    "demo:me5_small": _E5_SMALL,
    "hf:facebook/dinov2-small": _dinov2("small"),
    "hf:facebook/dinov2-base": _dinov2("base"),
    "hf:facebook/dinov2-large": _dinov2("large"),
    "hf:facebook/dinov2-giant": _dinov2("giant"),
    "hf:facebook/dinov3-vits16-pretrain-lvd1689m": _dinov3("small", 1536),
    "hf:facebook/dinov3-vits16plus-pretrain-lvd1689m": _dinov3("small", 1536, **_GATED),
    "hf:facebook/dinov3-vitb16-pretrain-lvd1689m": _dinov3("base", 3072),
    "hf:facebook/dinov3-vitl16-pretrain-lvd1689m": _dinov3("large", 4096),
    "hf:facebook/dinov3-vith16plus-pretrain-lvd1689m": _dinov3(
        "huge", 5120, num_attention_heads=20, **_GATED
    ),
    "hf:facebook/dinov3-vit7b16-pretrain-lvd1689m": _dinov3(
        "7b", 8192, query_bias=False, value_bias=False, **_GATED
    ),
    "hf:apple/aimv2-large-patch14-224": {"model_type": "aimv2_vision_model", "use_head": False},
    "hf:apple/aimv2-large-patch14-224-lit": {"model_type": "aimv2_vision_model"},
    "hf:DeepGlint-AI/mlcd-vit-bigG-patch14-336": {"model_type": "mlcd_vision_model"},
    "hf:nvidia/C-RADIOv4-H": {"model_type": "radio"},
    "hf:facebook/pixio-huge": {"model_type": "pixio"},
    "hf:facebook/vit-mae-base": {"model_type": "vit_mae"},
    "hf:facebook/vit-msn-base": {"model_type": "vit_msn"},
    "hf:facebook/ijepa_vith14_1k": {**_vit("huge", 14), "model_type": "ijepa"},
    "hf:microsoft/beit-base-patch16-224": _BEIT,
    "hf:facebook/data2vec-vision-base": {**_BEIT, "model_type": "data2vec-vision"},
    "hf:facebook/convnext-tiny-224": _convnext("convnext", 96, 9),
    "hf:facebook/convnext-base-224": _convnext("convnext", 128, 27),
    "hf:facebook/convnextv2-tiny-22k-224": _convnext("convnextv2", 96, 9),
    "hf:facebook/dinov3-convnext-tiny-pretrain-lvd1689m": _convnext("dinov3_convnext", 96, 9),
    "hf:google/vit-base-patch16-224-in21k": _vit("base", 16),
    "hf:google/vit-base-patch16-224": _vit("base", 16),
    "hf:google/vit-base-patch32-224-in21k": _vit("base", 32),
    "hf:google/vit-large-patch16-224-in21k": _vit("large", 16),
    "hf:google/vit-large-patch16-224": _vit("large", 16),
    "hf:google/vit-huge-patch14-224-in21k": _vit("huge", 14),
    "hf:google-bert/bert-base-uncased": _bert("base", 30_522),
    "hf:google-bert/bert-base-multilingual-cased": _bert("base", 119_547),
    "hf:google-bert/bert-large-uncased": _bert("large", 30_522),
    "hf:FacebookAI/xlm-roberta-base": _xlm_r("base"),
    "hf:FacebookAI/xlm-roberta-large": _xlm_r("large"),
    "hf:google/electra-base-discriminator": _bert(
        "base", 30_522, model_type="electra", embedding_size=768
    ),
    "hf:albert/albert-base-v2": _bert("base", 30_000, model_type="albert", embedding_size=128),
    "hf:microsoft/deberta-v3-base": _deberta_v3("base"),
    "hf:microsoft/deberta-v3-large": _deberta_v3("large"),
    "hf:microsoft/mdeberta-v3-base": _deberta_v3("base", 251_000),
    "hf:sentence-transformers/all-MiniLM-L6-v2": _MINILM,
    "hf:intfloat/multilingual-e5-small": _E5_SMALL,
    "hf:Qwen/Qwen3-Embedding-0.6B": _qwen3(1024, 28, 16, 3072, 151_669),
    "hf:Qwen/Qwen3-Embedding-4B": _qwen3(2560, 36, 32, 9728, 151_665),
    "hf:Qwen/Qwen3-Embedding-8B": _qwen3(4096, 36, 32, 12288, 151_665),
    "hf:google/embeddinggemma-300m": _EMBEDDING_GEMMA,
    "hf:EuroBERT/EuroBERT-210m": {"model_type": "eurobert", "rope_theta": 250_000.0},
}
