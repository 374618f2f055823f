"""The layers that a config reads of a tower: one, or several that are joined."""

from __future__ import annotations

from ape_jax.config import Config
from ape_jax.config.rules.layers import require_chosen
from ape_jax.config.sections.model import Layer
from ape_jax.errors import UserError
from ape_jax.towers.layers.joined import joining
from ape_jax.towers.pooling import OWN as TRAINED
from ape_jax.towers.tower import Kind, Tower, check_pooling


def chosen(config: Config, kind: Kind, tower: Tower) -> tuple[Tower, int]:
    """A side's tower as `image.layer` or `text.layer` has it read, and the layer that is read.

    Of several layers the tower is one that joins them, read at its output.

    Raises:
      UserError: naming the key, for a layer that the tower does not have, or several where one
        alone can be read.
    """
    require_chosen(config)
    side = config.side(kind)
    if isinstance(side.layer, tuple):
        return _joining(config, tower, side.layer), -1
    layer = int(side.layer)
    if not tower.config.inner_layers:
        _check_layer(kind, tower, layer)
    elif layer > tower.config.depth:
        raise UserError(
            f"config.{kind}.layer: {side.tower} has {tower.config.depth} blocks, found {layer}"
        )
    return tower, layer


def one(layer: Layer, tower: Tower) -> int:
    """The layer that another library reads of its tower.

    Raises:
      UserError: the message begins with the option, where there are several.
    """
    if isinstance(layer, tuple):
        raise UserError(
            f"layer is {layer}; several are joined of towers that JAX runs, and {tower.spec} is "
            "run by torch: write one"
        )
    return int(layer)


def check_image_pooling(tower: Tower, layer: int, pooling: str) -> None:
    """Raises UserError where an image tower cannot be pooled like this at this layer."""
    try:
        check_pooling(pooling, tower.config)
    except UserError as error:
        raise UserError(f"config.image.pooling: {error}") from error
    if pooling == "none" and not tower.config.prefix_tokens:
        raise UserError(
            "config.image.pooling: 'none' is for a head on CLS and patches, and this tower has no "
            "CLS; write 'mean'"
        )
    if pooling == "map" and layer != -1:
        raise UserError("config.image.pooling: 'map' belongs to image.layer=-1; write 'mean'")
    if tower.config.joined and (pooling == "none" or pooling in TRAINED):
        raise UserError(
            f"config.image.pooling: {pooling!r} is no pooling of several layers, found "
            f"image.layer={tower.config.joined}; write 'mean'"
        )


def _joining(config: Config, tower: Tower, layers: tuple[int, ...]) -> Tower:
    kind, tune = tower.kind, config.side(tower.kind).tune
    if tune != "frozen":
        raise UserError(
            f"config.{kind}.layer: several layers are joined of a frozen tower, found {kind}.tune="
            f"{tune!r}; write one layer"
        )
    try:
        return joining(tower, layers)
    except UserError as error:
        raise UserError(f"config.{kind}.layer: {error}") from error


def _check_layer(kind: Kind, tower: Tower, layer: int) -> None:
    try:
        tower.resolve(layer, None)
    except UserError as error:
        raise UserError(f"config.{kind}.layer: {error}") from error
