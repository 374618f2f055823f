"""Rules of negative captions (`loss.hard`)."""

from __future__ import annotations

from ape_jax.config.components import LOSSES
from ape_jax.config.experiment import Config
from ape_jax.config.outside import is_precomputed
from ape_jax.errors import UserError


def check(config: Config) -> None:
    """Raises UserError for what negative captions do not go with."""
    if not config.loss.hard:
        return
    if not LOSSES[config.loss.name].hard:
        those = " or ".join(repr(name) for name, loss in LOSSES.items() if loss.hard)
        raise UserError(
            f"config.loss.hard: {config.loss.name!r} takes no negative captions; write 0 or "
            f"loss.name={those}"
        )
    if config.latent.mixup:
        raise UserError(
            "config.loss.hard: latent.mixup makes images of two, whose negatives are neither's; "
            "write 0 for one of them"
        )
    if config.structure.weight:
        raise UserError(
            "config.loss.hard: structure.weight keeps how captions lie to each other, among which "
            "negatives are not; write 0 for one of them"
        )
    if is_precomputed(config.data.pairs):
        raise UserError(
            f"config.loss.hard: {config.data.pairs!r} are precomputed vectors, which have no "
            "column of negatives; write 0"
        )
