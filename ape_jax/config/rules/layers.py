"""Rules of layers and poolings that the training pairs choose."""

from __future__ import annotations

from ape_jax.config.components import SideName
from ape_jax.config.experiment import Config
from ape_jax.config.fields import BY_DATA
from ape_jax.config.outside import is_outside
from ape_jax.errors import UserError

SIDES: tuple[SideName, SideName] = ("image", "text")


def open_keys(config: Config) -> list[str]:
    """The keys of layers and poolings that the pairs are to choose.

    Example:
      >>> open_keys(Config().replace({"image.layer": "auto", "text.pooling": "auto"}))
      ['image.layer', 'text.pooling']
    """
    keys = ((f"{side}.{name}", side, name) for side in SIDES for name in ("layer", "pooling"))
    return [key for key, side, name in keys if config.side(side)[name] == BY_DATA]


def check(config: Config) -> None:
    """Raises UserError where a choice is asked for and cannot be made."""
    keys = open_keys(config)
    if not keys:
        if config.data.domain and not config.train.folds:
            raise UserError(
                "config.data.domain: it has an effect where layers or the number of steps are "
                "chosen by the pairs, and nothing is left to them; write image.layer='auto' or "
                "train.folds=5, or leave it out"
            )
        return
    for side in SIDES:
        tune, tower = config.side(side).tune, config.side(side).tower
        if tune != "frozen":
            raise UserError(
                f"config.{keys[0]}: 'auto' compares the layers of two frozen towers, found "
                f"{side}.tune={tune!r}; write the layer and the pooling"
            )
        if is_outside(tower):
            raise UserError(
                f"config.{keys[0]}: 'auto' compares the layers of towers that JAX runs, found "
                f"{side}.tower={tower!r}; write the layer and the pooling"
            )
    for key, found in (("start.run", config.start.run), ("start.model", config.start.model)):
        if found:
            raise UserError(
                f"config.{keys[0]}: 'auto' is for fresh heads, and those of {key}={found!r} take "
                "the layers that they were trained on; write these"
            )


def require_chosen(config: Config) -> None:
    """Raises UserError where layers or poolings are still to be chosen."""
    if keys := open_keys(config):
        raise UserError(
            f"config.{keys[0]}: 'auto' is chosen by the pairs when a training or an extraction "
            "starts, and nothing is chosen here; write what `ape-jax layers` finds"
        )
