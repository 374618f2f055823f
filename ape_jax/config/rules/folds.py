"""Rules of the number of steps that held-out folds choose (`train.folds`)."""

from __future__ import annotations

from ape_jax.config.experiment import Config
from ape_jax.errors import UserError


def check(config: Config) -> None:
    """Raises UserError where folds cannot choose the number of steps."""
    if not config.train.folds:
        return
    if config.train.folds == 1:
        raise UserError(
            "config.train.folds: one fold leaves no pairs to train on; write 2 or more, or 0"
        )
    frozen = config.image.tune == config.text.tune == "frozen"
    if not (frozen and config.cache.views and config.cache.text):
        raise UserError(
            "config.train.folds: folds train heads on features that are encoded once; it needs "
            "image.tune and text.tune='frozen', cache.views of at least 1 and cache.text=True; "
            "where towers are trained, write 0 with data.split=0.1 and eval.keep='best'"
        )
    if config.eval.keep == "best":
        raise UserError(
            "config.train.folds: folds choose the number of steps, and eval.keep='best' chooses "
            "among them again; write train.folds=0 or eval.keep='last'"
        )
    if config.start.run:
        raise UserError(
            "config.train.folds: the run of start.run may have learnt the pairs that a fold holds "
            "out; write 0, or start.run=''"
        )
