"""timm's `VisionTransformer`: AugReg, DeiT, DINOv2, MAE, CLIP and SigLIP trunks, UNI, Virchow, ...

Nearly all of a model is read off its tensors. Its architecture's name stands for the rest: heads,
activation, epsilon. What neither says is an error, or, where all published models agree, said once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ape_jax.towers.family import Fields
from ape_jax.towers.files import reading
from ape_jax.towers.files.names import Shape
from ape_jax.towers.vision import family
from ape_jax.towers.vision.config import ViTConfig
from ape_jax.towers.vision.prepare import IMAGENET, cropped, image_prepare
from ape_jax.towers.vision.timm import names, preprocessing
from ape_jax.towers.vision.timm.description import Description

# timm/models/vision_transformer.py and deit.py, without blocks of other kinds.
_ARCHITECTURE = re.compile(
    r"(?:vit|deit|deit3|flexivit|eva)_(?P<size>[a-z0-9]+)(_distilled)?(_patch\d+)?(?P<plus>_plus)?"
    r"(_36x1|_clip(_quickgelu)?|_siglip(_gap)?|_reg\d+(_gap|_map|_dinov2|_tipsv2)|_gap|_dinov2)?"
    r"(_\d+)?(_in21k|_miil|_dino|_mae|_sam)?"
)
# Width and heads by the size in the name; the first that matches.
_SIZES: tuple[tuple[str, int, int], ...] = (
    (r"vit_giant_patch14(_reg\d+)?_(dinov2|tipsv2)", 1536, 24),
    (r"vit_base_patch16_gap_224", 768, 16),
    (r"vit_base_patch\d+_plus_.*", 896, 14),
    *(
        (rf"[a-z0-9]+_{size}_.*|flexivit_{size}", width, heads)
        for size, width, heads in (
            ("tiny", 192, 3),
            ("wee", 256, 4),
            ("xsmall", 256, 4),
            ("little", 320, 5),
            ("small", 384, 6),
            ("mediumd?", 512, 8),
            ("betwixt", 640, 10),
            ("base", 768, 12),
            ("so150m", 896, 14),
            ("so150m2", 832, 13),
            ("large", 1024, 16),
            ("so400m", 1152, 16),
            ("huge", 1280, 16),
            ("giant", 1408, 16),
            ("giantopt", 1536, 16),
            ("gigantic", 1664, 16),
        )
    ),
)
_ACTIVATIONS = (
    (r".*_quickgelu_.*", "quick_gelu"),
    (r"vit_(base_patch32|so400m_patch16|giantopt_patch16)_siglip_.*", "gelu_tanh"),
    (r"vit_large_patch16_siglip_(gap_)?512", "gelu_tanh"),
    (r"vit_giant_patch14(_reg\d+)?_(dinov2|tipsv2)", "silu"),
    (r".*", "gelu"),
)
_POOLS = (
    (r".*_gap_.*|eva_.*|vit_.*_reg\d+_gap_.*", "avg"),
    (r".*_siglip_.*|.*_map_.*", "map"),
    (r".*", "token"),
)
_OURS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "tanh": "tanh",
}
# Arguments that the tensors say, and those that only training has.
_SAID_BY_TENSORS = frozenset(
    "img_size patch_size in_chans num_classes embed_dim depth mlp_ratio qkv_bias proj_bias "
    "init_values class_token reg_tokens no_embed_class pre_norm final_norm fc_norm mlp_layer "
    "dynamic_img_size strict_img_size".split()
)
_TRAINING = frozenset(
    "drop_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate drop_path_rate "
    "weight_init fix_init pretrained_strict".split()
)
# Arguments that change the model, with the values that leave it as it is read here.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "qk_norm": (False,),
    "scale_attn_norm": (False,),
    "scale_mlp_norm": (False,),
    "pos_embed": ("learn",),
    "dynamic_img_pad": (False,),
    "embed_layer": (),
    "embed_norm_layer": (),
    "norm_layer": ("layernorm",),
    "block_fn": (),
    "attn_layer": ("", "attn"),
    "use_naflex": (False,),
}
_USED = frozenset(("num_heads", "act_layer", "global_pool", "pool_include_prefix"))


def fits(architecture: str) -> bool:
    """Whether a name is of an architecture that is read here."""
    match = _ARCHITECTURE.fullmatch(architecture)
    return match is not None and (match["size"] == "large" or not architecture.startswith("eva_"))


def read_config(description: Description, shapes: Mapping[str, Shape]) -> ViTConfig:
    """The config of a model, by its tensors, its arguments and its name.

    Args:
      description: of the model.
      shapes: of its tensors, by timm's names.

    Raises:
      UserError: it is of another kind, or something is said nowhere.
    """
    extra = names.unknown(shapes)
    if extra:
        raise description.unsupported(f"has the tensor {extra[0]!r}")
    _check_arguments(description)
    read = _Shapes(description, shapes)
    width, _, patch, _ = read("patch_embed.proj.weight", 4)
    registers = read("reg_token", 3)[1] if "reg_token" in shapes else 0
    cls, distilled = "cls_token" in shapes, "dist_token" in shapes
    prefix = cls + distilled + registers
    grid, position_prefix = _grid(description, read("pos_embed", 3)[1], prefix, patch)
    size = preprocessing.input_size(description)
    (wide, _), (_, narrow) = (read(f"blocks.0.mlp.{name}.weight", 2) for name in ("fc1", "fc2"))
    gated = wide == 2 * narrow
    return ViTConfig(
        kind="image",
        family="timm",
        width=width,
        depth=1
        + max((int(m[1]) for n in shapes if (m := re.match(r"blocks\.(\d+)\.", n))), default=0),
        heads=_heads(description, width),
        mlp_width=narrow,
        activation=_activation(description, gated),
        norm_eps=1e-5 if "_clip_" in description.architecture else 1e-6,
        image_size=size if size // patch == grid else grid * patch,
        patch_size=patch,
        pooling=_pooling(
            description, cls=cls, distilled=distilled, mapped="attn_pool.latent" in shapes
        ),
        prefix_tokens=prefix,
        cls=cls,
        distilled=distilled,
        registers=registers,
        position_prefix=position_prefix,
        antialias=True,
        patch_bias="patch_embed.proj.bias" in shapes,
        qkv_bias="blocks.0.attn.qkv.bias" in shapes,
        layer_scale="blocks.0.ls1.gamma" in shapes,
        swiglu=gated,
        pre_norm="norm_pre.weight" in shapes,
        map_head="attn_pool.latent" in shapes,
        map_prefix=description.args.flag("pool_include_prefix", False),
        last_norm="norm.weight" in shapes or "fc_norm.weight" in shapes,
        norm_pooled="fc_norm.weight" in shapes,
    )


class _Shapes:
    """Shapes of tensors that a model of this kind has."""

    def __init__(self, description: Description, shapes: Mapping[str, Shape]):
        self._description, self._shapes = description, shapes

    def __call__(self, name: str, axes: int) -> Shape:
        shape = self._shapes.get(name)
        if shape is None:
            raise self._description.unsupported(f"has no tensor {name!r}")
        if len(shape) != axes or 0 in shape:
            raise self._description.unsupported(f"has a tensor {name!r} of shape {list(shape)}")
        return shape


def _check_arguments(description: Description) -> None:
    args = description.args
    for key in list(args.values):
        value = args.values[key]
        if key in _SAID_BY_TENSORS or key in _TRAINING or key in _USED or value is None:
            continue
        if key not in _PLAIN or value not in _PLAIN[key]:
            raise description.unsupported(f"is changed by {key!r}: {value!r} in 'model_args'")


def _grid(description: Description, rows: int, prefix: int, patch: int) -> tuple[int, int]:
    """Patches a side of the position table, and its rows before those of the patches."""
    fit = {p: side for p in (0, prefix) if (side := round((rows - p) ** 0.5)) ** 2 == rows - p > 0}
    if len(fit) > 1:  # Tables such as 25 rows with 9 tokens before the patches.
        size = preprocessing.input_size(description)
        fit = {p: side for p, side in fit.items() if side == size // patch} or fit
    if len(fit) != 1:
        raise description.unsupported(
            f"has a position table of {rows} rows, which is for no square grid of patches beside "
            f"{prefix} tokens"
        )
    ((position_prefix, side),) = fit.items()
    return side, position_prefix


def _heads(description: Description, width: int) -> int:
    args = description.args
    if args.values.get("num_heads") is not None:
        return args.integer("num_heads")
    named = width_and_heads(description.architecture)
    if named is not None and width in (named[0], args.values.get("embed_dim")):
        return named[1]
    said = "no width" if named is None else f"a width of {named[0]}"
    raise args.error(
        f"architecture {description.architecture!r} has {said} and the tensors {width}, so the "
        "number of heads is not known; write 'num_heads' there"
    )


def width_and_heads(architecture: str) -> tuple[int, int] | None:
    """Width and heads that the name of an architecture stands for, None for no such name."""
    return _first(tuple((name, (width, heads)) for name, width, heads in _SIZES), architecture)


def _first(table: tuple[tuple[str, Any], ...], architecture: str) -> Any:
    return next((value for pattern, value in table if re.fullmatch(pattern, architecture)), None)


def _activation(description: Description, gated: bool) -> str:
    named: str = _first(_ACTIVATIONS, description.architecture)
    if description.args.values.get("act_layer") is not None:
        return _OURS[description.args.choice("act_layer", _OURS)]
    if gated and named != "silu":
        reading.assumed(
            "the MLP is gated and model_args says no act_layer; 'silu' is taken, as UNI 2, "
            "Virchow 2 and H-optimus have it"
        )
        return "silu"
    return _OURS[named]


def _pooling(description: Description, *, cls: bool, distilled: bool, mapped: bool) -> str:
    """The pooling of timm's own features."""
    args = description.args
    named: str = _first(_POOLS, description.architecture)
    pool = args.values.get("global_pool")
    pool = description.pool if pool is None else pool
    pool = named if pool is None else pool
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
    tables=(names.NAMES,),
    prepare=lambda directory, config, options: image_prepare(
        directory,
        config,
        options,
        default=lambda size: cropped(
            "BitImageProcessor", size, edge=1 / 0.875, resample=3, **IMAGENET
        ),
    ),
    torch="has a class of timm, and none of transformers; export with --format jax",
)
