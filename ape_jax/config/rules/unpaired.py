"""Rules of unpaired images and texts: what they need, and what must be done with them."""

from __future__ import annotations

from ape_jax.config.experiment import Config
from ape_jax.config.outside import is_precomputed
from ape_jax.errors import UserError

_KLOT = ("teacher_eps", "iterations")


def check(config: Config) -> None:
    """Raises UserError naming a key that does not go with the others."""
    named = {key: spec for key in ("images", "texts") if (spec := config.data[key])}
    for key, spec in named.items():
        _check_frozen(config, key, spec)
    for use in ("klot", "match", "structure"):
        if config.unpaired[use] and len(named) < 2:
            raise UserError(
                f"config.unpaired.{use}: it compares unpaired images with unpaired texts; name "
                f"both in data.images and data.texts, found {', '.join(named) or 'neither'}"
            )
    if config.unpaired.klot:
        _check_klot(config)
    if config.unpaired.structure and not (config.structure.weight and config.trains):
        raise UserError(
            "config.unpaired.structure: the term has the weight and ramp of the pairs' term; write "
            "structure.weight above 0 and method='train'"
        )
    if config.unpaired.in_steps:
        _check_norm(config)
    form = config.closed_form
    if config.unpaired.match and (form is None or form.name != "cca"):
        raise UserError(
            "config.unpaired.match: unpaired images and texts are matched in CCA; write "
            "method='cca', or start.method='cca' to train from there"
        )
    if config.unpaired.statistics and not ("images" in named and config.image.standardize):
        raise UserError(
            "config.unpaired.statistics: unpaired images are centred and scaled with the others; "
            "it needs data.images and image.standardize=True"
        )
    both = config.unpaired.in_steps or config.unpaired.match
    uses = {
        "images": both or config.unpaired.statistics,
        "texts": both,
    }
    for key in named:
        if not uses[key]:
            raise UserError(
                f"config.data.{key}: nothing uses the unpaired {key}; write such as "
                "unpaired.klot=1.0, or leave them out"
            )


def _check_frozen(config: Config, key: str, spec: str) -> None:
    """Unpaired data are encoded once, by towers that stay as they are."""
    side = {"images": "image", "texts": "text"}[key]
    if is_precomputed(config.side(side).tower) or is_precomputed(spec):
        raise UserError(
            f"config.data.{key}: unpaired {key} are encoded by a tower, and given vectors are not "
            f"taken; name {key} and a {side}.tower that encodes them, or leave them out"
        )
    cached = {"image": config.cache.views, "text": config.cache.text}[side]
    if config.side(side).tune != "frozen" or not cached:
        cache = {"image": "cache.views of at least 1", "text": "cache.text=True"}[side]
        raise UserError(
            f"config.data.{key}: unpaired {key} are encoded once; it needs {side}.tune='frozen' "
            f"and {cache}"
        )


def _check_klot(config: Config) -> None:
    form = config.closed_form
    if not config.trains or form is None or config.start.run:
        raise UserError(
            "config.unpaired.klot: the teacher is the closed form that training starts from; write "
            f"method='train', start.method='cca' and start.run='', found {config.method!r}, "
            f"{config.start.method!r} and {config.start.run!r}"
        )


def _check_norm(config: Config) -> None:
    for side in ("image", "text"):
        if config.side(side).head.norm == "batch":
            raise UserError(
                f"config.{side}.head.norm: 'batch' would normalise unpaired data by themselves; "
                "write 'none', or leave unpaired.klot and unpaired.structure out"
            )


def unused(config: Config) -> dict[str, tuple[object, str]]:
    """Keys that have no effect, with the reason."""
    chosen = config.unpaired
    keys: dict[str, str] = {}
    if not chosen.klot:
        keys |= dict.fromkeys(_KLOT, "unpaired.klot=0")
    if not chosen.in_steps:
        keys["batch"] = "unpaired.klot=0 and unpaired.structure=False"
    if not chosen.match:
        keys["match_rounds"] = "unpaired.match=0"
        if not chosen.klot:
            keys["eps"] = "unpaired.klot=0 and unpaired.match=0"
    return {f"unpaired.{key}": (chosen[key], why) for key, why in keys.items()}
