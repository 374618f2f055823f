"""timm's `VisionTransformer` and `Eva`: AugReg, DeiT, DINO, MAE, UNI, Virchow, EVA-02, PE ...

Nearly all of a model is read off its tensors; its architecture's name stands for the rest
(`architectures.py`). What neither says is an error, or, where all published models agree, said.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from ape_jax.nn.axial import Axial
from ape_jax.towers.family import Fields
from ape_jax.towers.files import reading
from ape_jax.towers.files.names import Shape
from ape_jax.towers.files.rows import TIMM_HEAD, ClassifierRows, own_pooling
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import IMAGENET, cropped, image_prepare
from ape_jax.towers.vision.timm import names, preprocessing
from ape_jax.towers.vision.timm.architectures import Architecture
from ape_jax.towers.vision.timm.description import Description

_OURS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "tanh": "tanh",
}
# Arguments that the tensors say, those that only training has, and those that are read here.
_SAID_BY_TENSORS = frozenset(
    "img_size patch_size in_chans num_classes embed_dim depth mlp_ratio qkv_bias qkv_fused qk_norm "
    "proj_bias init_values class_token reg_tokens num_reg_tokens no_embed_class pre_norm "
    "final_norm fc_norm use_fc_norm use_pre_transformer_norm use_post_transformer_norm mlp_layer "
    "swiglu_mlp swiglu_align_to scale_mlp scale_attn_inner scale_attn_norm scale_mlp_norm "
    "use_abs_pos_emb attn_type attn_pool_mlp_ratio dynamic_img_size strict_img_size".split()
)
_TRAINING = frozenset(
    "drop_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate drop_path_rate "
    "weight_init fix_init head_init_scale pretrained_strict rope_shift_coords rope_jitter_coords "
    "rope_rescale_coords".split()
)
_USED = frozenset(
    "num_heads act_layer global_pool pool_include_prefix attn_pool_num_heads rope_temperature "
    "rope_grid_offset rope_grid_indexing ref_feat_shape".split()
)
# Arguments that change the model, with the values that leave it as it is read here.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "pos_embed": ("learn",),
    "dynamic_img_pad": (False,),
    "norm_layer": ("layernorm",),
    "attn_layer": ("", "attn"),
    "use_naflex": (False,),
    "use_post_norm": (False,),
    "attn_only_layer_scale": (False,),
}


def read_config(
    description: Description, architecture: Architecture, shapes: Mapping[str, Shape]
) -> ViTConfig:
    """The config of a model, by its tensors, its arguments and its name.

    Args:
      description: of the model.
      architecture: what its name stands for.
      shapes: of its tensors, by timm's names.

    Raises:
      UserError: it is of another kind, or something is said nowhere.
    """
    extra = names.unknown(shapes)
    if extra:
        raise description.unsupported(f"has the tensor {extra[0]!r}")
    _check_arguments(description, architecture)
    read = _Shapes(description, shapes)
    registers = read("reg_token", 3)[1] if "reg_token" in shapes else 0
    mlp = _mlp(description, architecture, read)
    tokens = {"cls": "cls_token" in shapes, "distilled": "dist_token" in shapes}
    prefix = sum(tokens.values()) + registers
    return ViTConfig(
        kind="image",
        family="timm",
        width=(width := read("patch_embed.proj.weight", 4)[0]),
        depth=read.depth(),
        heads=(heads := _heads(description, architecture, width)),
        norm_eps=architecture.eps,
        pooling=_pooling(description, architecture, **tokens, mapped="attn_pool.latent" in shapes),
        prefix_tokens=prefix,
        registers=registers,
        antialias=True,
        patch_bias="patch_embed.proj.bias" in shapes,
        unbiased=_unbiased(read),
        layer_scale=_layer_scale(description, read),
        pre_norm="norm_pre.weight" in shapes,
        last_norm="norm.weight" in shapes or "fc_norm.weight" in shapes,
        norm_pooled="fc_norm.weight" in shapes,
        rotation=_rotation(description, architecture),
        attention_norm=read.has("attn.norm.weight"),
        mlp_norm=read.has("mlp.norm.weight"),
        qk_norm=read.has("attn.q_norm.weight"),
        **tokens,
        **mlp,
        **_map_head(description, architecture, read, heads, mlp["mlp_width"]),
        **_positions(description, read, prefix),
    )


class _Shapes:
    """Shapes of tensors that a model of this kind has."""

    def __init__(self, description: Description, shapes: Mapping[str, Shape]):
        self._description, self.shapes = description, shapes

    def __call__(self, name: str, axes: int) -> Shape:
        shape = self.shapes.get(name)
        if shape is None:
            raise self._description.unsupported(f"has no tensor {name!r}")
        if len(shape) != axes or 0 in shape:
            raise self._description.unsupported(f"has a tensor {name!r} of shape {list(shape)}")
        return shape

    def has(self, name: str) -> bool:
        """Whether the first block has a tensor."""
        return f"blocks.0.{name}" in self.shapes

    def depth(self) -> int:
        """How many blocks there are."""
        found = (re.match(r"blocks\.(\d+)\.", name) for name in self.shapes)
        return 1 + max((int(match[1]) for match in found if match), default=0)


def _check_arguments(description: Description, architecture: Architecture) -> None:
    args = description.args
    turned = architecture.rotation
    plain = {
        **_PLAIN,
        "use_rot_pos_emb": (turned is not None,),
        "rope_type": (None if turned is None else "dinov3" if turned.centered else "cat",),
        "rope_rotate_half": (turned is not None and not turned.interleaved,),
    }
    for key in list(args.values):
        value = args.values[key]
        if key in _SAID_BY_TENSORS or key in _TRAINING or key in _USED or value is None:
            continue
        if key not in plain or value not in plain[key]:
            raise description.unsupported(f"is changed by {key!r}: {value!r} in 'model_args'")


def _mlp(description: Description, architecture: Architecture, read: _Shapes) -> dict[str, Any]:
    split = read.has("mlp.fc1_g.weight")
    wide = read(f"blocks.0.mlp.{'fc1_x' if split else 'fc1'}.weight", 2)[0]
    narrow = read("blocks.0.mlp.fc2.weight", 2)[1]
    packed = not split and wide == 2 * narrow
    return {
        "mlp_width": narrow,
        "gated": packed or split,
        "activation": _activation(description, architecture, packed=packed, split=split),
    }


def _activation(
    description: Description, architecture: Architecture, *, packed: bool, split: bool
) -> str:
    # EVA's gates are SiLU whatever is asked for.
    if split or (packed and architecture.map_prefix):
        return "silu"
    if description.args.values.get("act_layer") is not None:
        return _OURS[description.args.choice("act_layer", _OURS)]
    if packed and architecture.activation != "silu":
        reading.assumed(
            "the MLP is gated and model_args says no act_layer; 'silu' is taken, as UNI 2, "
            "Virchow 2 and H-optimus have it"
        )
        return "silu"
    return _OURS[architecture.activation]


def _unbiased(read: _Shapes) -> tuple[str, ...]:
    """The linear layers of a block without a bias."""
    fused = read.has("attn.qkv.bias")
    files = {
        "query": ("attn.q_bias", "attn.q_proj.bias"),
        "key": ("attn.k_proj.bias",),
        "value": ("attn.v_bias", "attn.v_proj.bias"),
    }
    without = () if fused else [n for n, file in files.items() if not any(map(read.has, file))]
    own = {
        "out": ("attn.proj.bias",),
        "gate": ("mlp.fc1_g.bias", "mlp.fc1.bias"),
        "fc1": ("mlp.fc1_x.bias", "mlp.fc1.bias"),
        "fc2": ("mlp.fc2.bias",),
    }
    return (*without, *(name for name, file in own.items() if not any(map(read.has, file))))


def _layer_scale(description: Description, read: _Shapes) -> bool:
    one, two = (any(read.has(name) for name in (f"ls{n}.gamma", f"gamma_{n}")) for n in ("1", "2"))
    if one != two:
        raise description.unsupported("has LayerScale in one branch of its blocks")
    return one


def _positions(description: Description, read: _Shapes, prefix: int) -> dict[str, Any]:
    """The patch, the image and the position table, where there is one."""
    patch = read("patch_embed.proj.weight", 4)[2]
    size = preprocessing.input_size(description)
    if "pos_embed" not in read.shapes:
        return {"patch_size": patch, "image_size": size, "position_table": False}
    rows = read("pos_embed", 3)[1]
    fit = {p: side for p in (0, prefix) if (side := round((rows - p) ** 0.5)) ** 2 == rows - p > 0}
    if len(fit) > 1:  # Tables such as 25 rows with 9 tokens before the patches.
        fit = {p: side for p, side in fit.items() if side == size // patch} or fit
    if len(fit) != 1:
        raise description.unsupported(
            f"has a position table of {rows} rows, which is for no square grid of patches beside "
            f"{prefix} tokens"
        )
    ((position_prefix, grid),) = fit.items()
    return {
        "patch_size": patch,
        "image_size": size if size // patch == grid else grid * patch,
        "position_prefix": position_prefix,
    }


def _rotation(description: Description, architecture: Architecture) -> Axial | None:
    args, rotation = description.args, architecture.rotation
    if rotation is None:
        return None
    named = "xy" if rotation.across_first else "ij"
    reference = args.values.get("ref_feat_shape", rotation.reference)
    if isinstance(reference, list) and len(set(reference)) == 1:
        reference = reference[0]
    if not (reference is None or isinstance(reference, int)):
        raise args.error(f"'ref_feat_shape' is {reference!r}; only square grids are supported")
    offset = args.number("rope_grid_offset", rotation.offset)
    if rotation.centered and (offset or reference):
        raise description.unsupported("moves or stretches centred places")
    return dataclasses.replace(
        rotation,
        theta=args.number("rope_temperature", rotation.theta),
        offset=offset,
        reference=reference,
        across_first=args.choice("rope_grid_indexing", ("ij", "xy"), named) == "xy",
    )


def _heads(description: Description, architecture: Architecture, width: int) -> int:
    args = description.args
    if args.values.get("num_heads") is not None:
        return args.integer("num_heads")
    named, heads = architecture.size
    if width in (named, args.values.get("embed_dim")):
        return heads
    raise args.error(
        f"architecture {description.architecture!r} has a width of {named} and the tensors "
        f"{width}, so the number of heads is not known; write 'num_heads' there"
    )


def _map_head(
    description: Description, architecture: Architecture, read: _Shapes, heads: int, width: int
) -> dict[str, Any]:
    if "attn_pool.latent" not in read.shapes:
        return {}
    own = description.args.integer("attn_pool_num_heads", architecture.map_heads or heads)
    hidden = read("attn_pool.mlp.fc1.weight", 2)[0]
    return {
        "map_head": True,
        "map_heads": None if own == heads else own,
        "map_mlp_width": None if hidden == width else hidden,
        "map_prefix": architecture.map_prefix
        or description.args.flag("pool_include_prefix", False),
    }


def _pooling(
    description: Description,
    architecture: Architecture,
    *,
    cls: bool,
    distilled: bool,
    mapped: bool,
) -> str:
    """The pooling of timm's own features."""
    args = description.args
    pool = args.values.get("global_pool")
    pool = description.pool if pool is None else pool
    pool = architecture.pool if pool is None else pool
    fields = Fields({"global_pool": pool}, description.label)
    pool = fields.choice("global_pool", ("", "avg", "map", "token"))
    if pool == "avg" and args.flag("pool_include_prefix", False):
        raise description.unsupported("pools the tokens before the patches too")
    if pool == "map" and not mapped:
        raise fields.error("'global_pool' is 'map', but there is no tensor 'attn_pool.latent'")
    if pool == "token" and not cls:
        raise fields.error("'global_pool' is 'token', but there is no tensor 'cls_token'")
    if mapped:  # It is there to pool, whatever is written.
        return "map"
    if pool == "" or distilled:
        own = "cls" if cls else "mean"
        what = "gives the tokens alone" if pool == "" else "gives the mean of the first two tokens"
        reading.assumed(f"timm {what} of this model; pooling {own!r} is taken where none is named")
        return own
    return {"avg": "mean", "token": "cls"}[pool]


def _no_section(fields: Fields) -> ViTConfig:
    raise fields.error("timm's models are described by their tensors too; name their directory")


TIMM = family.declare(
    name="timm",
    title="timm",
    models="timm/vit_base_patch14_dinov2.lvd142m, MahmoodLab/UNI, paige-ai/Virchow2",
    model_types={},
    parse=_no_section,
    tables=names.TABLES,
    prepare=partial(
        image_prepare,
        default=partial(cropped, "BitImageProcessor", edge=1 / 0.875, resample=3, **IMAGENET),
    ),
    classifier=ClassifierRows(layers=(TIMM_HEAD,), pooling=own_pooling),
    torch="has a class of timm, and none of transformers; export with --format jax",
)
