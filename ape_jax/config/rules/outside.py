"""Rules of towers that encode outside of JAX: precomputed features, and models that torch runs."""

from __future__ import annotations

from ape_jax.config.automatic import AUTO
from ape_jax.config.components import SideName
from ape_jax.config.experiment import Config
from ape_jax.config.outside import is_precomputed, is_torch
from ape_jax.errors import UserError


def check(config: Config) -> None:
    """Raises UserError naming a key that does not go with such a tower."""
    _check_vectors(config)
    sides: tuple[SideName, ...] = ("image", "text")
    for side in sides:
        if is_torch(config.side(side).tower):
            _check_torch(config, side)


def _check_torch(config: Config, side: SideName) -> None:
    """Another library gives features and no gradients, and prepares raw inputs itself."""
    chosen, tower = config.side(side), config.side(side).tower
    if chosen.tune != "frozen":
        raise UserError(
            f"config.{side}.tune: {tower!r} is run by torch, which gives features and no "
            f"gradients; write 'frozen', or a tower that JAX runs, found {chosen.tune!r}"
        )
    if chosen.param_dtype == "int8":
        raise UserError(
            f"config.{side}.param_dtype: 'int8' is for towers that JAX runs, and {tower!r} is run "
            "by torch; write 'float32' or 'bfloat16'"
        )
    if side == "image" and config.image.size not in (0, AUTO):
        raise UserError(
            f"config.image.size: {tower!r} has its own library prepare images; write 0, found "
            f"{config.image.size}"
        )
    if side == "image" and not config.cache.views:
        raise UserError(
            f"config.cache.views: {tower!r} is run by torch, once before training; write 1, or the "
            "number of views with augmentation, found 0"
        )
    if side == "text" and not config.cache.text:
        raise UserError(
            f"config.cache.text: {tower!r} is run by torch, once before training; write True"
        )


def _check_vectors(config: Config) -> None:
    """Vectors that are given need a side that takes them, in every source alike."""
    towers = {side: config.side(side).tower for side in ("image", "text")}
    given = [side for side, tower in towers.items() if is_precomputed(tower)]
    sources = {"data.pairs": config.data.pairs}
    sources.update({f"data.eval.{name}": spec for name, spec in config.data.eval.items()})
    for key, spec in sources.items():
        if is_precomputed(spec) and "image" not in given:
            raise UserError(
                f"config.{key}: {spec!r} gives vectors in the place of images; write "
                "image.tower='features:WIDTH'"
            )
        if given and not is_precomputed(spec):
            raise UserError(
                f"config.{key}: {given[0]}.tower={towers[given[0]]!r} takes vectors; write "
                f"'features:FILE', found {spec!r}"
            )
    if given == ["text"]:
        raise UserError(
            "config.text.tower: vectors for texts alone are not supported; give the images' too, "
            "image.tower='features:WIDTH'"
        )
    for side in given:
        if config.side(side).tune != "frozen" or config.side(side).layer != -1:
            raise UserError(
                f"config.{side}.tower: {towers[side]!r} has no layers to choose from or to "
                f"train; leave {side}.tune and {side}.layer at their defaults"
            )
    if "image" in given and config.cache.views != 1:
        raise UserError(
            f"config.cache.views: given vectors are not encoded; write 1, found "
            f"{config.cache.views} (several views of an image are rows [V, d] of it)"
        )
    if "image" in given and (config.image.size or config.image.pooling != "own"):
        raise UserError(
            "config.image: given vectors are not prepared or pooled; leave image.size and "
            "image.pooling out"
        )
