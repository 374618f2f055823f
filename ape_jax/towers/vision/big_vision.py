"""ViTs in big_vision's .npz files: the config read off the shapes, and their names.

Three generations, all seen in public files (big_vision `models/vit.py`, `fix_old_checkpoints`, and
timm's loader of the same files): the ViT paper and AugReg (`MultiHeadDotProductAttention_1`,
positions under `posembed_input`), big_vision (`MultiHeadDotProductAttention_0`, `pos_embedding`
beside the blocks; `params/img/` in two-tower files), and big_vision with `scan=True`
(`encoderblock/`, every layer in one array). big_vision resizes positions with scipy's linear zoom;
we use the bicubic of the torch ViT instead.
"""

from __future__ import annotations

import re

from ape_jax.errors import UserError
from ape_jax.towers.files.names import (
    HEADS_BIAS,
    HEADS_IN,
    HEADS_OUT,
    LEAD1,
    LEAD11,
    NameTable,
    Rule,
    Tensors,
)
from ape_jax.towers.vision.config import ViTConfig

PREFIXES = ("", "params/", "params/img/", "img/", "opt/target/", "opt/target/img/")
_RENAMES = (
    (r"Transformer/posembed_input/pos_embedding$", "pos_embedding"),
    (r"Transformer/pos_embedding$", "pos_embedding"),
)
_IGNORE = (
    r"(.*/)?(head|pre_logits)/(kernel|bias)",
    r"(params/|opt/target/)?(txt/.*|t|b)",
    r"opt/state/.*",
)


def attention_rules(file: str, path: str, stacked: bool = False) -> tuple[Rule, ...]:
    """The rules of flax's multi-head attention."""
    rules = []
    for name in ("query", "key", "value"):
        rules.append(Rule(f"{file}/{name}/kernel", f"{path}/{name}/kernel", HEADS_IN, stacked))
        rules.append(Rule(f"{file}/{name}/bias", f"{path}/{name}/bias", HEADS_BIAS, stacked))
    rules.append(Rule(f"{file}/out/kernel", f"{path}/out/kernel", HEADS_OUT, stacked))
    return (*rules, Rule(f"{file}/out/bias", f"{path}/out/bias", stacked=stacked))


def pair(file: str, path: str, kind: str, stacked: bool = False) -> tuple[Rule, Rule]:
    """The rules of a flax layer with a bias; `kind` is "kernel" or "scale"."""
    weight = Rule(f"{file}/{kind}", f"{path}/{kind}", stacked=stacked)
    return weight, Rule(f"{file}/bias", f"{path}/bias", stacked=stacked)


def _table(block: str, attention: int, norm2: int, mlp: int) -> NameTable:
    """The numbers are those flax gave the parts of a block, by kind or one after the other."""
    block, stacked = f"Transformer/{block}", "{i}" not in block
    inner = f"{block}/MlpBlock_{mlp}"
    return NameTable(
        rules=(
            Rule("cls", "embed/cls", LEAD11),
            Rule("pos_embedding", "embed/position", LEAD1),
            *pair("embedding", "embed", "kernel"),
            *attention_rules(
                f"{block}/MultiHeadDotProductAttention_{attention}", "blocks/attention", stacked
            ),
            *pair(f"{block}/LayerNorm_0", "blocks/norm1", "scale", stacked),
            *pair(f"{block}/LayerNorm_{norm2}", "blocks/norm2", "scale", stacked),
            *pair(f"{inner}/Dense_0", "blocks/mlp/fc1", "kernel", stacked),
            *pair(f"{inner}/Dense_1", "blocks/mlp/fc2", "kernel", stacked),
            *pair("Transformer/encoder_norm", "norm", "scale"),
            Rule("MAPHead_0/probe", "head/probe", LEAD11),
            *attention_rules("MAPHead_0/MultiHeadDotProductAttention_0", "head/attention"),
            *pair("MAPHead_0/LayerNorm_0", "head/norm", "scale"),
            *pair("MAPHead_0/MlpBlock_0/Dense_0", "head/mlp/fc1", "kernel"),
            *pair("MAPHead_0/MlpBlock_0/Dense_1", "head/mlp/fc2", "kernel"),
        ),
        prefixes=PREFIXES,
        ignore=_IGNORE,
        renames=_RENAMES,
    )


AUGREG_NAMES = _table("encoderblock_{i}", attention=1, norm2=2, mlp=3)
BIG_VISION_NAMES = _table("encoderblock_{i}", attention=0, norm2=1, mlp=0)
SCANNED_NAMES = _table("encoderblock", attention=0, norm2=1, mlp=0)
TABLES = (AUGREG_NAMES, BIG_VISION_NAMES, SCANNED_NAMES)


def read_config(tensors: Tensors) -> ViTConfig:
    """The config of the ViT in an .npz, from the shapes of its tensors.

    Raises:
      UserError: it holds no ViT, or one without a learned position table.
    """
    shapes = {BIG_VISION_NAMES.old_spelling(n): s for n, s in tensors.shapes.items()}
    prefix = next((p for p in PREFIXES if f"{p}embedding/kernel" in shapes), None)
    if prefix is None:
        raise UserError(
            f"{tensors.label} holds no big_vision ViT (no tensor 'embedding/kernel'); it holds "
            f"{', '.join(sorted(tensors.shapes)[:4])} ...: write a file that big_vision or the "
            "ViT and AugReg papers published, or a safetensors directory"
        )
    shapes = {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}

    def shape(pattern: str, ndim: int) -> tuple[int, ...]:
        """The shape of the one tensor whose name fits."""
        fits = [n for n in shapes if re.fullmatch(pattern, n)]
        if len(fits) != 1 or len(shapes[fits[0]]) != ndim or 0 in shapes[fits[0]]:
            found = f"{fits[0]} of shape {list(shapes[fits[0]])}" if fits else "none"
            raise UserError(
                f"{tensors.label}: expected a tensor like {prefix}{pattern} with {ndim} axes, "
                f"found {found}; this is no ViT of a supported big_vision generation"
            )
        return shapes[fits[0]]

    patch, _, channels, width = shape("embedding/kernel", 4)
    _, rows, _ = shape("pos_embedding", 3)
    grid = int(rows**0.5)
    if channels != 3 or grid * grid not in (rows, rows - 1):
        raise UserError(
            f"{tensors.label}: {channels} channels and {rows} positions; only RGB towers with a "
            "square grid of learned positions (and CLS) are supported"
        )
    # One array for all layers, or numbered blocks of which the first shows the sizes.
    scanned = any(n.startswith("Transformer/encoderblock/") for n in shapes)
    block, extra = ("encoderblock", 1) if scanned else ("encoderblock_0", 0)
    query = shape(rf"Transformer/{block}/MultiHeadDotProductAttention_\d/query/kernel", 3 + extra)
    fc1 = shape(rf"Transformer/{block}/MlpBlock_\d/Dense_0/kernel", 2 + extra)
    blocks = {m[1] for n in shapes if (m := re.match(r"Transformer/(encoderblock_\d+)/", n))}
    cls, head = "cls" in shapes, "MAPHead_0/probe" in shapes
    return ViTConfig(
        kind="image",
        family="vit",
        width=width,
        depth=query[0] if scanned else len(blocks),
        heads=query[-2],
        mlp_width=fc1[-1],
        pooling="map" if head else "cls" if cls else "mean",
        activation="gelu_pytorch_tanh",  # flax's nn.gelu, unlike the HF conversions of AugReg
        norm_eps=1e-6,  # flax's nn.LayerNorm
        prefix_tokens=int(cls),
        image_size=grid * patch,
        patch_size=patch,
        cls=cls,
        position_prefix=rows - grid * grid,
        map_head=head,
    )
