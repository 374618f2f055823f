"""The state of training: what a step changes, and what a checkpoint holds of it."""

from __future__ import annotations

from jaxtyping import Array, Int, PyTree

from ape_jax.nn.tree import Tree


class State(Tree):
    """What a step changes, and all that a checkpoint must hold of it.

    Attributes:
      step: i32 scalar, steps taken.
      trainable: the trained parameters.
      opt_state: the optimizer's.
      average: the moving average of the trained parameters, None where none is kept.
    """

    step: Int[Array, ""]
    trainable: PyTree
    opt_state: PyTree
    average: PyTree | None = None

    @property
    def evaluated(self) -> PyTree:
        """The parameters that evaluation and inference use."""
        return self.trainable if self.average is None else self.average
