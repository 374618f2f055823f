"""Retrieval figures as Python users see them: a dictionary that prints as a table."""

from __future__ import annotations

from ape_jax.data.pairs import Pairs
from ape_jax.evaluators import tasks
from ape_jax.terminal import tables


class Evaluation(dict[str, float]):
    """Figures of a model on pairs, `{"i2t_r1": 0.43, ...}`; its repr is a table beside chance.

    Attributes:
      images: number of images.
      captions: number of captions.
      chance: the figures that guessing would have.
    """

    def __init__(self, figures: dict[str, float], pairs: Pairs):
        super().__init__(figures)
        self.images, self.captions = len(pairs), pairs.num_captions
        self.chance = tasks.chance(pairs)

    def __repr__(self) -> str:
        head = [f"{self.images} images, {self.captions} captions, %"]
        rows = [
            [name, *(tables.cell(key, figures[key]) for key in tables.RETRIEVAL)]
            for name, figures in (("model", self), ("chance", self.chance))
        ]
        return tables.markdown([*head, *map(tables.metric_title, tables.RETRIEVAL)], rows)
