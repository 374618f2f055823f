"""Common parts of ConvNet families: config keys, names, groups of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ape_jax.towers.family import Family, Fields
from ape_jax.towers.files.names import CONV, Form, Rule, linear, norm
from ape_jax.towers.tower import MAX_DEPTH
from ape_jax.towers.vision import family as vision
from ape_jax.towers.vision.convnet.network import ConvNeXt, ConvNeXtConfig

DEPTHWISE = Form(
    "torch depthwise convolution [c, 1, h, w]",
    lambda a: a[:, 0].transpose(1, 2, 0),
    lambda a, h: a.transpose(2, 0, 1)[:, None],
)
_STAGE = r"stages_\d+"
_GROUPS = (
    (r"stem/patches/kernel", "patch embedding"),
    (rf"{_STAGE}/(down|blocks/depthwise)/kernel", "convolution"),
    (rf"{_STAGE}/blocks/mlp/fc[12]/kernel(_scale)?", "kernel"),
    (rf"stem/patches/bias|{_STAGE}/(down|blocks/(depthwise|mlp/(fc[12]|grn)))/bias", "bias"),
    (rf"{_STAGE}/blocks/mlp/grn/scale", "response norm"),
    (rf"{_STAGE}/blocks/scale/scale", "layer scale"),
)
_MOST_STAGES = 8
STAGES = tuple((stage, f"stages_{stage}") for stage in range(_MOST_STAGES))
"""Numbers of stages and where their parameters lie, of as many as any tower has."""


def declare(**declared: Any) -> Family:
    """A family whose module is `ConvNeXt`."""
    shared = {"module": ConvNeXt, "adapt": vision.adapt, "groups": _GROUPS}
    return Family(kind="image", **shared, **declared)


def conv(file: str, path: str, form: Form = CONV) -> tuple[Rule, Rule]:
    """The two rules of a torch convolution."""
    return Rule(f"{file}.weight", f"{path}/kernel", form), Rule(f"{file}.bias", f"{path}/bias")


def stage_rules(
    file: str, *, down: tuple[str, str], block: Sequence[str], stem: tuple[str, str]
) -> tuple[Rule, ...]:
    """The rules of the stem and of the stages.

    Args:
      file: what stands before the names of a stage, `{s}` for its number.
      down: names of the norm and the convolution before a stage.
      block: names of the depthwise convolution, the norm, the two linear layers and LayerScale.
      stem: names of the convolution and the norm of the stem.
    """
    depthwise, own_norm, fc1, fc2, scale = block
    rules = [*conv(stem[0], "stem/patches"), *norm(stem[1], "stem/norm")]
    for stage, to in STAGES:
        at = file.replace("{s}", str(stage))
        inner = f"{at}.layers.{{i}}"
        rules += [
            *norm(f"{at}.{down[0]}", f"{to}/norm"),
            *conv(f"{at}.{down[1]}", f"{to}/down"),
            *conv(f"{inner}.{depthwise}", f"{to}/blocks/depthwise", DEPTHWISE),
            *norm(f"{inner}.{own_norm}", f"{to}/blocks/norm"),
            *linear(f"{inner}.{fc1}", f"{to}/blocks/mlp/fc1"),
            *linear(f"{inner}.{fc2}", f"{to}/blocks/mlp/fc2"),
            Rule(f"{inner}.{scale}", f"{to}/blocks/scale/scale"),
        ]
    return tuple(rules)


def sizes(fields: Fields, *, eps: float, stem_size: int = 4) -> dict[str, Any]:
    """The keys that the configs of all ConvNeXts have, with their defaults."""
    if fields.integer("num_channels", 3) != 3:
        raise fields.unsupported("'num_channels' is not 3; only RGB towers are supported")
    widths = _list(fields, "hidden_sizes", (96, 192, 384, 768), most=1 << 20)
    depths = _list(fields, "depths", (3, 3, 9, 3), most=MAX_DEPTH)
    stages = fields.integer("num_stages", len(depths))
    if not len(widths) == len(depths) == stages <= _MOST_STAGES:
        raise fields.error(
            f"'hidden_sizes' {list(widths)}, 'depths' {list(depths)} and 'num_stages' {stages} "
            f"disagree; write as many of each, {_MOST_STAGES} at most"
        )
    return {
        "kind": "image",
        "width": widths[-1],
        "depth": 0,
        "heads": 1,
        "mlp_width": 4 * widths[-1],
        "inner_layers": False,
        "activation": fields.activation("hidden_act", "gelu"),
        "norm_eps": fields.number("layer_norm_eps", eps),
        "image_size": vision.square(fields, "image_size", 224),
        "patch_size": stem_size * 2 ** (stages - 1),
        "stem_size": stem_size,
        "widths": widths,
        "depths": depths,
    }


def _list(fields: Fields, key: str, default: tuple[int, ...], *, most: int) -> tuple[int, ...]:
    """A list of whole numbers, one a stage."""
    value = fields.values.get(key)
    value = list(default) if value is None else value
    if (
        not isinstance(value, list)
        or not value
        or any(type(v) is not int or not 1 <= v <= most for v in value)
    ):
        raise fields.error(f"{key!r} is {value!r}; write whole numbers, one a stage")
    return tuple(value)


def describe(config: ConvNeXtConfig, model_type: str, **more: Any) -> dict[str, Any]:
    """The way back from `sizes`: a config.json for transformers."""
    return {
        "model_type": model_type,
        "hidden_sizes": list(config.widths),
        "depths": list(config.depths),
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        "image_size": config.image_size,
        **more,
    }
