"""Rules of free pairs: rows of a classifier lie where its tower's output does, and nowhere else."""

from __future__ import annotations

from ape_jax.config.components import CLOSED_FORMS
from ape_jax.config.experiment import Config
from ape_jax.config.fields import BY_DATA
from ape_jax.config.outside import is_outside, is_precomputed
from ape_jax.errors import UserError


def check(config: Config) -> None:
    """Raises UserError naming a key that free pairs do not go with."""
    if not config.classifier.weight:
        return
    _check_rows(config)
    _check_names(config)
    form = config.closed_form
    if form is not None and not form.weighs_pairs:
        key = "start.method" if config.trains else "method"
        those = ", ".join(repr(name) for name, x in CLOSED_FORMS.items() if x.weighs_pairs)
        raise UserError(
            f"config.classifier.weight: {form.name!r} does not weigh pairs; write 0, or another "
            f"{key} ({those})"
        )
    for side in ("image", "text"):
        if config.trains and config.side(side).head.norm == "batch":
            raise UserError(
                f"config.{side}.head.norm: 'batch' would normalise free pairs by themselves; write "
                "'none', or classifier.weight=0"
            )


def _check_rows(config: Config) -> None:
    image = config.image
    if is_outside(image.tower):
        raise UserError(
            f"config.classifier.weight: no classifier is read of image.tower={image.tower!r}; "
            "write 0, or a supervised tower that JAX runs"
        )
    if image.layer != -1:
        raise UserError(
            "config.classifier.weight: the rows of a classifier lie in the space of the tower's "
            f"output; write image.layer=-1, found {image.layer!r}"
        )
    if image.pooling in ("none", BY_DATA):
        raise UserError(
            "config.classifier.weight: the rows of a classifier read one pooled vector; write "
            f"image.pooling='own' or the classifier's, found {image.pooling!r}"
        )
    if image.tune != "frozen" or not config.cache.views:
        raise UserError(
            "config.classifier.weight: the rows of a classifier belong to the tower as it is; it "
            "needs image.tune='frozen' and cache.views of at least 1"
        )


def _check_names(config: Config) -> None:
    if is_precomputed(config.text.tower):
        raise UserError(
            "config.classifier.weight: names of classes are encoded by a tower, and text.tower="
            f"{config.text.tower!r} gives vectors of your own; write 0"
        )
    if config.text.tune != "frozen" or not config.cache.text:
        raise UserError(
            "config.classifier.weight: names of classes are encoded once; it needs "
            "text.tune='frozen' and cache.text=True"
        )
    if config.data.language:
        raise UserError(
            "config.data.language: the languages of names of classes are not known; write '', or "
            "classifier.weight=0"
        )


def unused(config: Config) -> dict[str, tuple[object, str]]:
    """Keys that have no effect, with the reason."""
    chosen = config.classifier
    keys: dict[str, str] = {}
    if not chosen.weight:
        keys = dict.fromkeys(("names", "batch"), "classifier.weight=0")
    elif not config.trains:
        keys = {"batch": f"method={config.method!r}"}
    return {f"classifier.{key}": (chosen[key], why) for key, why in keys.items()}
