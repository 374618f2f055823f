"""What the names of timm's architectures stand for and no tensor says: heads, activation, places.

By timm 1.0.31: models/vision_transformer.py, models/deit.py and models/eva.py. Models of other
classes, and blocks of other kinds in these, are not here.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ape_jax.nn.axial import Axial

_VIT = re.compile(
    r"(?:vit|deit|deit3|flexivit|beit3)_[a-z0-9]+(_distilled)?(_patch\d+)?(_plus)?"
    r"(_36x1|_clip(_quickgelu)?|_siglip(_gap)?|_reg\d+(_gap|_map|_dinov2|_tipsv2)|_gap|_dinov2)?"
    r"(_\d+)?(_in21k|_miil|_dino|_mae|_sam)?|eva_large_patch\d+_\d+"
)
_EVA = re.compile(
    r"eva_giant_patch\d+(_clip)?_\d+|eva02_(tiny|small|base|large)_patch\d+(_clip)?_\d+"
    r"|vit_[a-z]+(_plus)?_patch16_(dinov3|lingbot)(_qkvb)?|vit_7b_patch16_dinov3"
    r"|vit_pe_(core|lang|spatial)_[a-z]+_patch\d+_\d+"
    r"|vit_[a-z]+_patch16_rope(_reg\d+_gap_256|(_ape)?_224)"
)
# Width and heads by the size in the name; the first that matches.
_SIZES: tuple[tuple[str, tuple[int, int]], ...] = (
    (r"vit_giant_patch14(_reg\d+)?_(dinov2|tipsv2)|vit_giant_patch16_lingbot", (1536, 24)),
    (r"vit_pe_[a-z]+_gigantic_.*", (1536, 16)),
    (r"vit_huge_plus_.*", (1280, 20)),
    (r"vit_7b_.*", (4096, 32)),
    (r"vit_base_patch16_gap_224", (768, 16)),
    (r"vit_base_patch\d+_plus_.*", (896, 14)),
    *(
        (rf"(?:vit_pe_[a-z]+|[a-z0-9]+)_{size}_.*|flexivit_{size}", numbers)
        for size, numbers in (
            ("tiny", (192, 3)),
            ("wee", (256, 4)),
            ("xsmall", (256, 4)),
            ("little", (320, 5)),
            ("small", (384, 6)),
            ("mediumd?", (512, 8)),
            ("betwixt", (640, 10)),
            ("base", (768, 12)),
            ("so150m", (896, 14)),
            ("so150m2", (832, 13)),
            ("large", (1024, 16)),
            ("intern300m", (1024, 16)),
            ("so400m", (1152, 16)),
            ("huge", (1280, 16)),
            ("giant", (1408, 16)),
            ("giantopt", (1536, 16)),
            ("gigantic", (1664, 16)),
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
    (r"vit_pe_core_.*|.*_siglip_\d+|.*_map_.*", "map"),
    (r".*_gap_.*|eva_large_.*|beit3_.*", "avg"),
    (r"eva.*_clip_.*|vit_.*_(rope|rope_ape)_224|.*_lingbot", "token"),
    (r"eva.*|vit_pe_.*|.*_dinov3(_qkvb)?", "avg"),
    (r".*", "token"),
)
_EPS = (
    (r".*_dinov3(_qkvb)?|.*_lingbot|vit_pe_.*|beit3_.*", 1e-5),
    (r"vit_.*_clip_.*", 1e-5),
    (r".*", 1e-6),
)
_CENTERED = Axial(theta=100.0, centered=True)
_COUNTED = Axial(theta=1e4, interleaved=True)
_ROTATIONS: tuple[tuple[str, Axial | None], ...] = (
    (r".*_(dinov3(_qkvb)?|lingbot)", _CENTERED),
    (r"eva02_.*|vit_.*_rope_reg\d+_gap_256", dataclasses.replace(_COUNTED, reference=16)),
    (r"vit_pe_[a-z]+_gigantic_.*", dataclasses.replace(_COUNTED, across_first=True)),
    (r"vit_pe_.*", dataclasses.replace(_COUNTED, across_first=True, offset=1.0)),
    (r"vit_.*_rope(_ape)?_224", dataclasses.replace(_COUNTED, across_first=True, theta=100.0)),
    (r".*", None),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a name stands for.

    Attributes:
      size: width and heads.
      activation: of the MLP, by timm's name.
      pool: `global_pool`.
      eps: of the norms.
      rotation: how patches are turned by their places; None for not at all.
      map_heads: heads of the attention pooling; None: as many as the blocks have.
      map_prefix: the attention pooling sees the tokens before the patches too.
    """

    size: tuple[int, int]
    activation: str
    pool: str
    eps: float
    rotation: Axial | None
    map_heads: int | None
    map_prefix: bool


def named(name: str) -> Architecture | None:
    """What the name of an architecture stands for; None where it is not read here.

    >>> named("vit_large_patch16_224").size
    (1024, 16)
    >>> named("swin_tiny_patch4_window7_224")
    """
    eva, size = _EVA.fullmatch(name) is not None, _first(_SIZES, name)
    if size is None or not (eva or _VIT.fullmatch(name)):
        return None
    rotation: Axial | None = _first(_ROTATIONS, name)
    at = re.fullmatch(r"vit_pe_.*_patch(\d+)_(\d+)", name)
    if at and rotation is not None:  # Stretched to the grid of the published size.
        rotation = dataclasses.replace(rotation, reference=int(at[2]) // int(at[1]))
    return Architecture(
        size=size,
        activation=_first(_ACTIVATIONS, name),
        pool=_first(_POOLS, name),
        eps=_first(_EPS, name),
        rotation=rotation,
        map_heads=8 if name.startswith("vit_pe_core_") else None,
        map_prefix=eva,
    )


def _first(table: tuple[tuple[str, Any], ...], name: str) -> Any:
    return next((value for pattern, value in table if re.fullmatch(pattern, name)), None)
