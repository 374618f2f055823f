"""Rules of where heads start from: a finished model, a closed form, or nothing."""

from __future__ import annotations

from ape_jax.config.components import CLOSED_FORMS
from ape_jax.config.experiment import Config
from ape_jax.config.rules import layers
from ape_jax.errors import UserError


def check(config: Config) -> None:
    """Raises UserError naming a key that does not go with where the heads come from."""
    layers.check(config)
    _check_run(config)
    _check_model(config)
    _check_closed(config)
    _check_weights(config)


def _check_run(config: Config) -> None:
    """Parameters that come from another run come from there alone, and are trained."""
    if config.start.run and (not config.trains or config.start.model):
        raise UserError(
            "config.start.run: training starts from a run or from a finished model; write "
            f"method='train' and start.model='', found {config.method!r} and "
            f"{config.start.model!r}"
        )


def _check_model(config: Config) -> None:
    """Heads that come from a finished model take what its towers give, and are trained."""
    if not config.start.model:
        return
    if not config.trains or config.start.method != "none":
        raise UserError(
            "config.start.model: heads start from a model or from a closed form; write "
            f"method='train' and start.method='none', found {config.method!r} and "
            f"{config.start.method!r}"
        )
    if config.image.standardize:
        raise UserError(
            "config.image.standardize: the heads of start.model take features as they are; write "
            "False"
        )


def _check_closed(config: Config) -> None:
    """A closed form is solved on features of both towers; a start from one needs its heads."""
    key, form = "start.method" if config.trains else "method", config.closed_form
    if form is None:
        return
    if not config.trains and config.start.method != "none":
        raise UserError(
            f"config.start.method: with method={form.name!r} nothing is trained; write 'none', or "
            f"method='train' to train from where {config.start.method!r} ends"
        )
    frozen = config.image.tune == config.text.tune == "frozen"
    if not (frozen and config.cache.views and config.cache.text):
        raise UserError(
            f"config.{key}: {form.name!r} is solved on encoded features; it needs image.tune and "
            "text.tune='frozen', cache.views of at least 1 and cache.text=True"
        )
    if not form.takes_width and config.embed:
        raise UserError(
            f"config.embed: {form.name!r} has a width of its own; write 0, found {config.embed}"
        )
    if not config.trains:
        return
    image, text = form.image.name, form.text.name
    if config.image.head.name != image:
        raise UserError(
            f"config.image.head.name: a start from {form.name!r} needs {image!r}, found "
            f"{config.image.head.name!r}"
        )
    if config.text.head.name.split("+")[0] != text:
        raise UserError(
            f"config.text.head.name: a start from {form.name!r} is one of a {text} head; write "
            f"{text!r} or a sum that begins with it, found {config.text.head.name!r}"
        )


def _check_weights(config: Config) -> None:
    """Weights are kept through training where a closed form gives some."""
    form = config.closed_form
    if config.start.weights != "kept":
        return
    if not config.trains or form is None or not form.weighs:
        those = " or ".join(repr(name) for name, spec in CLOSED_FORMS.items() if spec.weighs)
        raise UserError(
            f"config.start.weights: 'kept' needs method='train' and start.method={those}, whose "
            f"directions have weights; found {config.method!r} and {config.start.method!r}"
        )
    if config.unpaired.match:
        raise UserError(
            "config.start.weights: 'kept' does not go with unpaired.match, whose weights are "
            "folded into the heads; write 'folded', or unpaired.match=0"
        )
    if config.closed.power == 0:
        raise UserError(
            "config.start.weights: with closed.power=0 all weights are one and there is nothing to "
            "keep; write 'folded', or a closed.power above 0"
        )
