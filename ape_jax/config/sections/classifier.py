"""Section of free pairs: rows of the image tower's classifier with the names of their classes."""

from __future__ import annotations

import dataclasses

from ape_jax.config.fields import integer, number, string
from ape_jax.config.section import Section, key


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Section):
    """What the classifier of a supervised image tower is used for; off by default."""

    weight: float = key(
        number(0.0, 0.0, 1e4),
        "Weight of the free pairs together, where the pairs together have 1: rows of the image "
        "tower's classifier, each with the name of its class.",
    )
    names: str = key(
        string(expects="'' or a .txt with the name of a class a line, in the order of the rows"),
        "Names of the classes, a line each; '' takes those in the tower's files.",
    )
    batch: int = key(integer(256, 2, 2**20), "Free pairs of a step of training.")
