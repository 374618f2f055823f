"""Tensor names of timm's vision transformers, which DeiT's own files and LilT's have too."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ape_jax.towers.files.names import (
    CONV,
    LEAD1,
    LEAD11,
    NameTable,
    Rule,
    fused,
    gated,
    linear,
    norm,
)

_BLOCK = "blocks.{i}"
_QKV = ("query", "key", "value")
_RULES = (
    Rule("cls_token", "embed/cls", LEAD11),
    Rule("dist_token", "embed/distillation", LEAD11),
    Rule("reg_token", "embed/registers", LEAD1),
    Rule("pos_embed", "embed/position", LEAD1),
    Rule("patch_embed.proj.weight", "embed/kernel", CONV),
    Rule("patch_embed.proj.bias", "embed/bias"),
    *norm("norm_pre", "pre_norm"),
    *norm(f"{_BLOCK}.attn.q_norm", "blocks/attention/query_norm"),
    *norm(f"{_BLOCK}.attn.k_norm", "blocks/attention/key_norm"),
    *norm(f"{_BLOCK}.attn.norm", "blocks/attention/norm"),
    *linear(f"{_BLOCK}.attn.proj", "blocks/attention/out"),
    Rule(f"{_BLOCK}.ls1.gamma", "blocks/scale1/scale"),
    Rule(f"{_BLOCK}.ls2.gamma", "blocks/scale2/scale"),
    *norm(f"{_BLOCK}.norm1", "blocks/norm1"),
    *norm(f"{_BLOCK}.norm2", "blocks/norm2"),
    *norm(f"{_BLOCK}.mlp.norm", "blocks/mlp/norm"),
    *linear(f"{_BLOCK}.mlp.fc2", "blocks/mlp/fc2"),
    *norm("norm", "norm"),
    Rule("attn_pool.latent", "head/probe", LEAD11),
    *linear("attn_pool.q", "head/attention/query"),
    *fused("attn_pool.kv", "head/attention", parts=("key", "value")),
    *linear("attn_pool.proj", "head/attention/out"),
    *norm("attn_pool.norm", "head/norm"),
    *linear("attn_pool.mlp.fc1", "head/mlp/fc1"),
    *linear("attn_pool.mlp.fc2", "head/mlp/fc2"),
)
_FUSED, _FUSED_BIAS = fused(f"{_BLOCK}.attn.qkv")
_ATTENTIONS = (
    (_FUSED, _FUSED_BIAS),
    # EVA's, whose keys have no bias.
    (
        _FUSED,
        Rule(f"{_BLOCK}.attn.q_bias", "blocks/attention/query/bias"),
        Rule(f"{_BLOCK}.attn.v_bias", "blocks/attention/value/bias"),
    ),
    tuple(
        rule
        for name in _QKV
        for rule in linear(f"{_BLOCK}.attn.{name[0]}_proj", f"blocks/attention/{name}")
    ),
)
_MLPS = (
    (
        *linear(f"{_BLOCK}.mlp.fc1", "blocks/mlp/fc1"),
        *gated(f"{_BLOCK}.mlp.fc1", "blocks/mlp"),  # Holds where there is a gate.
    ),
    (
        *linear(f"{_BLOCK}.mlp.fc1_g", "blocks/mlp/gate"),
        *linear(f"{_BLOCK}.mlp.fc1_x", "blocks/mlp/fc1"),
    ),
)
TABLES = tuple(
    NameTable(
        rules=(*_RULES, *attention, *mlp),
        ignore=(
            r"head(_dist)?\..*",
            r"mask_token",
            r"rope\.(bands|periods|pos_embed.*)",
            r"blocks\.\d+\.attn\.k_bias",  # A buffer of zeros.
        ),
        # The last norm, where it follows the pooling; EVA's LayerScale.
        renames=((r"^fc_norm\.", "norm."), (r"\.gamma_([12])$", r".ls\1.gamma")),
    )
    for attention in _ATTENTIONS
    for mlp in _MLPS
)
NAMES = TABLES[0]


def unknown(names: Iterable[str]) -> list[str]:
    """Those of the names that no tensor of the tables has, and that are not left out."""
    files = {rule.file for table in TABLES for rule in table.rules}
    patterns = [re.escape(file).replace(r"\{i\}", r"\d+") for file in files]
    known = re.compile("|".join((*patterns, *NAMES.ignore)))
    return sorted(n for n in names if not known.fullmatch(NAMES.old_spelling(n)))
