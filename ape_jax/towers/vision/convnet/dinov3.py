"""DINOv3's ConvNeXt (arXiv 2508.10104): token 0 is the mean of the positions, and pooled ("cls").

All tokens have passed the last norm, as transformers' `last_hidden_state` has.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ape_jax.towers.family import Fields, PoolerOutput, TorchClass
from ape_jax.towers.files.names import NameTable, norm
from ape_jax.towers.vision.convnet import family
from ape_jax.towers.vision.convnet.network import ConvNeXtConfig
from ape_jax.towers.vision.prepare import IMAGENET, image_prepare, squashed

_NAMES = NameTable(
    rules=(
        *family.stage_rules(
            "stages.{s}",
            down=("downsample_layers.0", "downsample_layers.1"),
            block=("depthwise_conv", "layer_norm", "pointwise_conv1", "pointwise_conv2", "gamma"),
            stem=("stages.0.downsample_layers.0", "stages.0.downsample_layers.1"),
        ),
        *norm("layer_norm", "norm"),
    ),
    renames=((r"^model\.stages", "stages"),),  # As the class in memory calls them.
)


def _parse(fields: Fields) -> ConvNeXtConfig:
    sizes = family.sizes(fields, eps=1e-6)
    return ConvNeXtConfig(
        **sizes,
        family="dinov3_convnext",
        pooling="cls",
        prefix_tokens=1,
        inner_eps=sizes["norm_eps"],
        mean_token=True,
    )


def _describe(config: ConvNeXtConfig, pooling: str) -> dict[str, Any]:
    return family.describe(config, "dinov3_convnext")


DINOV3_CONVNEXT = family.declare(
    name="dinov3_convnext",
    title="DINOv3 ConvNeXt",
    models="facebook/dinov3-convnext-tiny-pretrain-lvd1689m",
    licence="DINOv3 License, gated",
    model_types={"dinov3_convnext": None},
    parse=_parse,
    tables=(_NAMES,),
    prepare=partial(
        image_prepare, default=partial(squashed, "DINOv3ViTImageProcessor", resample=2, **IMAGENET)
    ),
    torch=TorchClass(
        describe=_describe,
        table=lambda config: _NAMES,
        pooler=PoolerOutput(pooling="cls", last_bias="layer_norm.bias"),
        resizes=True,
    ),
)
