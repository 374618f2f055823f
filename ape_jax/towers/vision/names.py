"""What the files of the vision families call their tensors.

These are the names that files have had since transformers 4 and that transformers 5 still writes,
whatever it calls the modules in memory.
"""

from __future__ import annotations

import dataclasses

from ape_jax.towers.files.names import (
    CONV,
    LEAD1,
    LEAD11,
    LINEAR,
    SAME,
    NameTable,
    Rule,
    linear,
    norm,
)

_QKV = ("query", "key", "value")
_EMBED = (
    Rule("embeddings.cls_token", "embed/cls", LEAD11),
    Rule("embeddings.distillation_token", "embed/distillation", LEAD11),
    Rule("embeddings.register_tokens", "embed/registers", LEAD1),
    Rule("embeddings.position_embeddings", "embed/position", LEAD1),
    Rule("embeddings.patch_embeddings.projection.weight", "embed/kernel", CONV),
    Rule("embeddings.patch_embeddings.projection.bias", "embed/bias"),
)
_BLOCK = "encoder.layer.{i}"
_ATTENTION = (
    *linear(f"{_BLOCK}.attention.attention.query", "blocks/attention/query"),
    *linear(f"{_BLOCK}.attention.attention.key", "blocks/attention/key"),
    *linear(f"{_BLOCK}.attention.attention.value", "blocks/attention/value"),
    *linear(f"{_BLOCK}.attention.output.dense", "blocks/attention/out"),
)
# The classes with heads on top keep the tower under a prefix and the heads beside it.
VIT_NAMES = NameTable(
    rules=(
        *_EMBED,
        *_ATTENTION,
        *norm(f"{_BLOCK}.layernorm_before", "blocks/norm1"),
        *norm(f"{_BLOCK}.layernorm_after", "blocks/norm2"),
        *linear(f"{_BLOCK}.intermediate.dense", "blocks/mlp/fc1"),
        *linear(f"{_BLOCK}.output.dense", "blocks/mlp/fc2"),
        *norm("layernorm", "norm"),
    ),
    prefixes=("", "vit.", "deit."),
    ignore=(
        r"(vit\.|deit\.)?pooler\..*",
        r"(vit\.|deit\.)?embeddings\.mask_token",
        r"(cls_|distillation_)?classifier\..*",
        r"decoder\..*",
    ),
)
_TIMM = "blocks.{i}"
# timm's, which DeiT's own files and LilT's have.
TIMM_NAMES = NameTable(
    rules=(
        Rule("cls_token", "embed/cls", LEAD11),
        Rule("pos_embed", "embed/position", LEAD1),
        Rule("patch_embed.proj.weight", "embed/kernel", CONV),
        Rule("patch_embed.proj.bias", "embed/bias"),
        Rule(
            f"{_TIMM}.attn.qkv.weight",
            tuple(f"blocks/attention/{n}/kernel" for n in _QKV),
            LINEAR,
        ),
        Rule(f"{_TIMM}.attn.qkv.bias", tuple(f"blocks/attention/{n}/bias" for n in _QKV), SAME),
        *linear(f"{_TIMM}.attn.proj", "blocks/attention/out"),
        *norm(f"{_TIMM}.norm1", "blocks/norm1"),
        *norm(f"{_TIMM}.norm2", "blocks/norm2"),
        *linear(f"{_TIMM}.mlp.fc1", "blocks/mlp/fc1"),
        *linear(f"{_TIMM}.mlp.fc2", "blocks/mlp/fc2"),
        *norm("norm", "norm"),
    ),
    ignore=(r"head\..*", r"mask_token"),
)
DINOV2_NAMES = NameTable(
    rules=(
        *_EMBED,
        *_ATTENTION,
        *norm(f"{_BLOCK}.norm1", "blocks/norm1"),
        *norm(f"{_BLOCK}.norm2", "blocks/norm2"),
        Rule(f"{_BLOCK}.layer_scale1.lambda1", "blocks/scale1/scale"),
        Rule(f"{_BLOCK}.layer_scale2.lambda1", "blocks/scale2/scale"),
        *linear(f"{_BLOCK}.mlp.fc1", "blocks/mlp/fc1"),
        *linear(f"{_BLOCK}.mlp.fc2", "blocks/mlp/fc2"),
        *norm("layernorm", "norm"),
    ),
    prefixes=("", "dinov2.", "dinov2_with_registers."),
    ignore=(
        r"(dinov2\.|dinov2_with_registers\.)?embeddings\.mask_token",
        r"classifier\..*",
    ),
)
DINOV2_SWIGLU_NAMES = dataclasses.replace(
    DINOV2_NAMES,
    rules=(
        *(r for r in DINOV2_NAMES.rules if ".mlp." not in r.file),
        *linear(f"{_BLOCK}.mlp.weights_in", "blocks/mlp/fc1"),
        *linear(f"{_BLOCK}.mlp.weights_out", "blocks/mlp/fc2"),
    ),
)
_LAYER = "encoder.layers.{i}"
_CLIP_BLOCKS = (
    *linear(f"{_LAYER}.self_attn.q_proj", "blocks/attention/query"),
    *linear(f"{_LAYER}.self_attn.k_proj", "blocks/attention/key"),
    *linear(f"{_LAYER}.self_attn.v_proj", "blocks/attention/value"),
    *linear(f"{_LAYER}.self_attn.out_proj", "blocks/attention/out"),
    *norm(f"{_LAYER}.layer_norm1", "blocks/norm1"),
    *norm(f"{_LAYER}.layer_norm2", "blocks/norm2"),
    *linear(f"{_LAYER}.mlp.fc1", "blocks/mlp/fc1"),
    *linear(f"{_LAYER}.mlp.fc2", "blocks/mlp/fc2"),
)
_HALF = (
    r"text_model\..*",
    r"(text_projection|visual_projection|classifier)\..*",
    r"logit_(scale|bias)",
    r"(vision_model\.)?embeddings\.position_ids",
)
CLIP_NAMES = NameTable(
    rules=(
        Rule("embeddings.class_embedding", "embed/cls"),
        Rule("embeddings.patch_embedding.weight", "embed/kernel", CONV),
        Rule("embeddings.position_embedding.weight", "embed/position"),
        *norm("pre_layrnorm", "pre_norm"),  # so spelt in every CLIP file
        *_CLIP_BLOCKS,
        *norm("post_layernorm", "norm"),
    ),
    prefixes=("vision_model.", ""),
    ignore=_HALF,
)
SIGLIP_NAMES = NameTable(
    rules=(
        Rule("embeddings.patch_embedding.weight", "embed/kernel", CONV),
        Rule("embeddings.patch_embedding.bias", "embed/bias"),
        Rule("embeddings.position_embedding.weight", "embed/position"),
        *_CLIP_BLOCKS,
        *norm("post_layernorm", "norm"),
        Rule("head.probe", "head/probe", LEAD11),
        Rule(
            "head.attention.in_proj_weight",
            tuple(f"head/attention/{n}/kernel" for n in _QKV),
            LINEAR,
        ),
        Rule("head.attention.in_proj_bias", tuple(f"head/attention/{n}/bias" for n in _QKV), SAME),
        *linear("head.attention.out_proj", "head/attention/out"),
        *norm("head.layernorm", "head/norm"),
        *linear("head.mlp.fc1", "head/mlp/fc1"),
        *linear("head.mlp.fc2", "head/mlp/fc2"),
    ),
    prefixes=("vision_model.", ""),
    ignore=_HALF,
)
