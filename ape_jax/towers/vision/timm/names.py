"""Tensor names of timm's vision transformers, which DeiT's own files and LilT's have too."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ape_jax.towers.files.names import (
    CONV,
    LEAD1,
    LEAD11,
    LINEAR,
    NameTable,
    Rule,
    gated,
    linear,
    norm,
)

_BLOCK = "blocks.{i}"
_QKV = ("query", "key", "value")
NAMES = NameTable(
    rules=(
        Rule("cls_token", "embed/cls", LEAD11),
        Rule("dist_token", "embed/distillation", LEAD11),
        Rule("reg_token", "embed/registers", LEAD1),
        Rule("pos_embed", "embed/position", LEAD1),
        Rule("patch_embed.proj.weight", "embed/kernel", CONV),
        Rule("patch_embed.proj.bias", "embed/bias"),
        *norm("norm_pre", "pre_norm"),
        Rule(
            f"{_BLOCK}.attn.qkv.weight",
            tuple(f"blocks/attention/{n}/kernel" for n in _QKV),
            LINEAR,
        ),
        Rule(f"{_BLOCK}.attn.qkv.bias", tuple(f"blocks/attention/{n}/bias" for n in _QKV)),
        *linear(f"{_BLOCK}.attn.proj", "blocks/attention/out"),
        Rule(f"{_BLOCK}.ls1.gamma", "blocks/scale1/scale"),
        Rule(f"{_BLOCK}.ls2.gamma", "blocks/scale2/scale"),
        *norm(f"{_BLOCK}.norm1", "blocks/norm1"),
        *norm(f"{_BLOCK}.norm2", "blocks/norm2"),
        *linear(f"{_BLOCK}.mlp.fc1", "blocks/mlp/fc1"),
        *gated(f"{_BLOCK}.mlp.fc1", "blocks/mlp"),  # Holds where there is a gate.
        *linear(f"{_BLOCK}.mlp.fc2", "blocks/mlp/fc2"),
        *norm("norm", "norm"),
        Rule("attn_pool.latent", "head/probe", LEAD11),
        *linear("attn_pool.q", "head/attention/query"),
        Rule(
            "attn_pool.kv.weight",
            tuple(f"head/attention/{n}/kernel" for n in _QKV[1:]),
            LINEAR,
        ),
        Rule("attn_pool.kv.bias", tuple(f"head/attention/{n}/bias" for n in _QKV[1:])),
        *linear("attn_pool.proj", "head/attention/out"),
        *norm("attn_pool.norm", "head/norm"),
        *linear("attn_pool.mlp.fc1", "head/mlp/fc1"),
        *linear("attn_pool.mlp.fc2", "head/mlp/fc2"),
    ),
    ignore=(r"head(_dist)?\..*", r"mask_token"),
    # The last norm, where it follows the pooling.
    renames=((r"^fc_norm\.", "norm."),),
)


def unknown(names: Iterable[str]) -> list[str]:
    """Those of the names that no tensor of the table has, and that are not left out."""
    patterns = [re.escape(rule.file).replace(r"\{i\}", r"\d+") for rule in NAMES.rules]
    known = re.compile("|".join((*patterns, *NAMES.ignore)))
    return sorted(n for n in names if not known.fullmatch(NAMES.old_spelling(n)))
