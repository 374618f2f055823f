"""Rules of the terms that are added to the contrastive loss."""

from __future__ import annotations

from typing import Any

from ape_jax.config.experiment import Config
from ape_jax.errors import UserError


def check(config: Config) -> None:
    """Raises UserError for a term that what is trained does not allow."""
    if not config.structure.weight:
        return
    for side in ("image", "text"):
        if config.side(side).tune != "frozen":
            raise UserError(
                "config.structure.weight: the term keeps the geometry of features that do not "
                f"change, and {side}.tune is {config.side(side).tune!r}; write 0 or tune='frozen'"
            )


def unused(config: Config) -> dict[str, tuple[Any, str]]:
    """Keys that have no effect, each with its value and the reason."""
    found: dict[str, tuple[Any, str]] = {}
    if not config.trains:
        found["structure.weight"] = (config.structure.weight, f"method={config.method!r}")
    if not config.structure.weight:
        for key in ("ramp", "temperature", "levels"):
            found[f"structure.{key}"] = (config.structure[key], "structure.weight=0")
    return found
