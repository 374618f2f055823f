"""The number of steps, chosen by held-out folds of the training pairs (`train.folds`)."""

from ape_jax.training.folds.settle import settled

__all__ = ["settled"]
