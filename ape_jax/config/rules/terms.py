"""Rules of the terms that are added to the contrastive loss."""

from __future__ import annotations

from typing import Any

from ape_jax.config.experiment import Config
from ape_jax.config.outside import is_outside
from ape_jax.errors import UserError


def check(config: Config) -> None:
    """Raises UserError for a term that what is trained does not allow."""
    if config.subwords.weight and config.trains:
        _check_subwords(config)
    if not config.structure.weight:
        return
    for side in ("image", "text"):
        if config.side(side).tune != "frozen":
            raise UserError(
                "config.structure.weight: the term keeps the geometry of features that do not "
                f"change, and {side}.tune is {config.side(side).tune!r}; write 0 or tune='frozen'"
            )


def _check_subwords(config: Config) -> None:
    """The side loss takes captions in words, and an image side that learns from it."""
    if is_outside(config.text.tower):
        raise UserError(
            "config.subwords.weight: it takes the subwords of captions, and text.tower="
            f"{config.text.tower!r} gives vectors without token ids; write 0"
        )
    if config.image.head.name == "identity" and config.image.tune == "frozen":
        raise UserError(
            "config.subwords.weight: the image side learns from it, and with "
            "image.head.name='identity' and image.tune='frozen' nothing of that is trained; write "
            "0, or image.head.name='linear'"
        )


def unused(config: Config) -> dict[str, tuple[Any, str]]:
    """Keys that have no effect, each with its value and the reason."""
    found: dict[str, tuple[Any, str]] = {}
    if not config.trains:
        for name, term in (("structure", config.structure), ("subwords", config.subwords)):
            found[f"{name}.weight"] = (term.weight, f"method={config.method!r}")
    if not config.structure.weight:
        for key in ("ramp", "temperature", "levels"):
            found[f"structure.{key}"] = (config.structure[key], "structure.weight=0")
    return found
