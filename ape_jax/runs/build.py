"""From a config to towers and a model; training and inference both start here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ape_jax.align import heads
from ape_jax.align.model import Model, Side
from ape_jax.align.tuning import finite, peft
from ape_jax.config import Config
from ape_jax.config.components import LOSSES, SideName, text_parts
from ape_jax.config.outside import is_torch
from ape_jax.config.poolings import OWN
from ape_jax.config.rules.layers import require_chosen
from ape_jax.config.sections import ImageConfig, TextConfig
from ape_jax.errors import UserError
from ape_jax.runs import widths
from ape_jax.runs.outputs import layers, text_pooling
from ape_jax.towers.loading import read
from ape_jax.towers.pooling import OWN as TRAINED
from ape_jax.towers.torch import folders as torch_folders
from ape_jax.towers.torch import reading as torch_reading
from ape_jax.towers.tower import Kind, Tower, TowerConfig

TOWERS = "towers"
"""The folder in which an exported run brings its towers, `image` and `text`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Towers:
    """The two towers of a config and their weights, as they were read.

    Attributes:
      image, text: the towers.
      params: `image_tower` and `text_tower`, their parameters on the host; shapes in a plan.
    """

    image: Tower
    text: Tower
    params: Mapping[str, PyTree]

    @classmethod
    def of(cls, image: tuple[Tower, PyTree], text: tuple[Tower, PyTree]) -> Towers:
        """The two of them, each with its parameters, as `towers.read` gives it."""
        params = {"image_tower": image[1], "text_tower": text[1]}
        return cls(image=image[0], text=text[0], params=params)


def load_towers(config: Config, brought: Path | None = None) -> Towers:
    """Reads the image and the text tower.

    Args:
      config: the resolved config.
      brought: a folder that, if it is there, has the towers in the place of their specs.

    Raises:
      UserError: naming the config key, for a tower that cannot be loaded as what it is used for.
    """
    brought = brought if brought is not None and brought.is_dir() else None
    return Towers.of(load_tower(config, "image", brought), load_tower(config, "text", brought))


def make_model(config: Config, towers: Towers, solved: Mapping[str, Any] | None = None) -> Model:
    """The model that the config describes, on these towers.

    Args:
      config: the resolved config.
      towers: its towers.
      solved: the record of a closed form that was solved (`closed_form.Solution`); without it,
        heads that await one are of any size.

    Raises:
      UserError: naming the config key, for a layer or pooling that a tower does not have or a
        tuning mode that it has nothing for.
    """
    require_chosen(config)
    image, text = towers.image, towers.text
    pooling = image.config.pooling if config.image.pooling == "own" else config.image.pooling
    image, image_layer = layers.chosen(config, "image", image)
    text, text_layer = layers.chosen(config, "text", text)
    layers.check_image_pooling(image, image_layer, pooling)
    width = (solved or {}).get("width") or config.embed or image.config.pooled_width(pooling)
    image, text = (_with_remat(config, tower) for tower in (image, text))
    options = peft.Options(**config.peft)
    model = Model(
        image=Side(
            tower=image,
            head=_image_head(config, width, image.config, solved),
            tune=config.image.tune,
            layer=image_layer,
            pooling=pooling,
            peft=options,
        ),
        text=Side(
            tower=text,
            head=_text_head(config, width, text, solved),
            tune=config.text.tune,
            layer=text_layer,
            pooling=text_pooling.output(config, text),
            peft=options,
        ),
        scale=config.loss.scale,
        scale_max=config.loss.scale_max,
        learn_scale=config.loss.learn_scale,
        bias=config.loss.bias if LOSSES[config.loss.name].bias else None,
        standardize=config.image.standardize,
        weights=width if config.trains and config.start.weights == "kept" else 0,
        dim=widths.chosen(config, width, solved),
    )
    if model.image.frontier == "hidden" and getattr(image.config, "max_patches", 0):
        raise UserError(
            f"config.image.tune: {config.image.tune!r} keeps hidden states of images without a "
            "mask, which those of a tower of packed images need; write another mode"
        )
    _check_tune("image", model.image, towers.params)
    _check_tune("text", model.text, towers.params)
    return model


def _with_remat(config: Config, tower: Tower) -> Tower:
    """The tower as it is trained; a frozen one keeps nothing for a backward pass."""
    if config.side(tower.kind).tune == "frozen":
        return tower
    return dataclasses.replace(tower, module=tower.module.clone(remat=config.train.remat))


def load_tower(config: Config, kind: Kind, brought: Path | None = None) -> tuple[Tower, PyTree]:
    """Reads one tower, and its parameters on the host.

    Args:
      config: the resolved config.
      kind: which of the two.
      brought: as for `load_towers`.

    Raises:
      UserError: as `load_towers`.
    """
    side = config.side(kind)
    spec = side.tower
    if brought is not None:  # A directory, or an .npz and perhaps a tokenizer.
        files = brought.glob(f"{kind}.npz")
        spec = next(files, brought / kind)
        spec = torch_folders.at(side.tower, spec) if is_torch(side.tower) else spec
    options: dict[str, Any] = {"dtype": side.dtype, "param_dtype": side.param_dtype}
    if isinstance(side, ImageConfig) and side.size:
        options["image_size"] = side.size
    if isinstance(side, TextConfig) and side.max_length:
        options["max_length"] = side.max_length
    if isinstance(side, TextConfig) and side.prefix != "own":
        options["prefix"] = side.prefix
    if is_torch(side.tower):
        options |= {"trust_remote_code": side.trust_remote_code, "torch_device": side.torch_device}
    try:
        tower, params = read(spec, kind=kind, **options)
        if tower.outside is not None:
            layer = layers.one(side.layer, tower)
            tower = torch_reading.at(tower, layer, _pooling_outside(config, tower))
        if tower.excluded and config.start.model != side.tower:
            raise UserError(
                f"{side.tower} has adapters, {tower.excluded[0]!r} and others; write "
                f"start.model={side.tower!r} and {kind}.tune='adapter' as well"
            )
        finite.check_finite(side.tower, params)
        return dataclasses.replace(tower, spec=side.tower), params
    except UserError as error:
        # The option at fault, if the message begins with it, has a key of its own.
        keys = {"image_size": "image.size", "max_length": "text.max_length"}
        keys |= {"layer": f"{kind}.layer", "pooling": f"{kind}.pooling"}
        keys |= {"dtype": f"{kind}.dtype", "param_dtype": f"{kind}.param_dtype"}
        key = keys.get(str(error).split(" ")[0], f"{kind}.tower")
        raise UserError(f"config.{key}: {error}") from error


def _pooling_outside(config: Config, tower: Tower) -> str:
    """How another library pools: images or captions itself, or not at all."""
    if tower.kind == "text":
        text_pooling.say(config, tower)
        return text_pooling.outside(config, tower)
    return tower.config.pooling if config.image.pooling == OWN else config.image.pooling


def _check_tune(name: str, side: Side, params: Mapping[str, PyTree]) -> None:
    try:
        jax.eval_shape(side.tuned.init, jax.random.key(0), params[f"{name}_tower"])
    except UserError as error:
        is_size = hasattr(side.peft, str(error).partition(":")[0])
        raise UserError(f"config.{'peft.' if is_size else f'{name}.tune: '}{error}") from error


def _image_head(
    config: Config, width: int, tower: TowerConfig, solved: Mapping[str, Any] | None
) -> heads.Head:
    form = config.closed_form
    if config.trains or form is None:
        dtype = jnp.dtype(config.image.dtype)
        return heads.image_head(config.image.head, width, tower, dtype, _exact(config, "image"))
    return heads.on_images(form.image, form.settings(solved), _solved_site(width, tower))


def _text_head(
    config: Config, width: int, described: Tower, solved: Mapping[str, Any] | None
) -> heads.Head:
    text_pooling.say(config, described)
    pooling, form = text_pooling.pooling(config, described), config.closed_form
    tower: TowerConfig = described.config
    if not config.trains and form is not None:
        site = _solved_site(width, tower)
        return heads.on_texts(form.text, form.settings(solved), site, pooling)
    output = text_pooling.output(config, described)
    kept = tower.pooled_width(output if output in TRAINED else pooling)
    for name, head in text_parts(config.text.head.name).items():
        if head.keeps_width and kept != width:
            raise UserError(
                f"config.text.head.name: {name!r} keeps the {kept} dimensions of text.tower, but "
                f"the joint width is {width}; write an image.head.name other than 'identity' and "
                f"embed={kept}"
            )
    dtype, exact = jnp.dtype(config.text.dtype), _exact(config, "text")
    return heads.text_head(config.text.head, width, tower, pooling, dtype, exact)


def _solved_site(width: int, tower: TowerConfig) -> heads.Site:
    """Solved maps are in f32: they take off a mean that may be much longer than what is left."""
    return heads.Site(features=width, tower=tower, dtype=jnp.dtype("float32"))


def _exact(config: Config, side: SideName) -> tuple[str, ...]:
    """The heads that training takes over from a closed form, and that stay in f32."""
    form = config.closed_form
    return () if form is None else (getattr(form, side).name,)
