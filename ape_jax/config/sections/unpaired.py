"""Section of training on images and texts without partners (`data.images`, `data.texts`)."""

from __future__ import annotations

import dataclasses

from ape_jax.config.fields import flag, integer, number
from ape_jax.config.section import Section, key


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnpairedConfig(Section):
    """What unpaired images and texts are used for; each use is off by default."""

    klot: float = key(
        number(0.0, 0.0, 1e4),
        "Weight of KLOT: the transport plan between unpaired images and texts follows that of the "
        "closed form that training starts from.",
    )
    match: float = key(
        number(0.0, 0.0, 1e4),
        "Weight, where the pairs have 1, of unpaired images and texts in CCA, which matches them "
        "by a transport plan.",
    )
    match_rounds: int = key(integer(1, 1, 100), "How often they are matched anew.")
    structure: bool = key(
        flag(False),
        "Whether the structure term (structure.weight) is taken of unpaired data as well.",
    )
    batch: int = key(
        integer(256, 2, 2**20), "Unpaired images, and as many unpaired texts, of a step."
    )
    eps: float = key(
        number(0.05, 1e-3, 1e3), "Entropy of the model's plan, and of the one that matches."
    )
    teacher_eps: float = key(number(0.005, 1e-3, 1e3), "Entropy of the closed form's plan.")
    iterations: int = key(integer(100, 1, 10_000), "Sinkhorn iterations for each plan.")
    statistics: bool = key(
        flag(False),
        "Whether image.standardize centres and scales by the unpaired images as well as those of "
        "the pairs.",
    )

    @property
    def in_steps(self) -> bool:
        """Whether each step of training takes unpaired images and texts."""
        return self.klot > 0 or self.structure
