"""The state that did best when it was evaluated, kept beside the newest one (`eval.keep`)."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import PyTree

from ape_jax.config import Config
from ape_jax.config.rules import HELD_OUT
from ape_jax.runs.checkpoints.checkpoint import BEST, Checkpoints
from ape_jax.runs.checkpoints.state import State

_STEP, _METRICS = "best step", "metrics"  # In `meta`.
_RECALLS = tuple(f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))


class Best:
    """The best state so far, in `DIR/best`.

    It is a function of the evaluations up to a step, so that a run which is killed and resumed ends
    with the same one: what a resumed run evaluates again has the same figures, and replaces a state
    only where it is better.

    Args:
      path: the work directory.
      config: of the run; without `eval.keep='best'` nothing is kept.

    Attributes:
      metrics: the evaluation of the best state, {} before the first.
    """

    def __init__(self, path: pathlib.Path, config: Config):
        self.metrics: Mapping[str, float] = {}
        self._sets = [HELD_OUT] if HELD_OUT in config.data.eval else list(config.data.eval)
        self._checkpoints = None
        if config.eval.keep == "best":
            self._checkpoints = Checkpoints(path, 1, clean=True, folder=BEST)
            if self._checkpoints.latest is not None:
                self.metrics = self._checkpoints.meta[_METRICS]

    def offer(
        self, metrics: Mapping[str, float], state: State, fixed: PyTree, meta: Mapping[str, Any]
    ) -> None:
        """Keeps a state if it is better than all before; on the disk when this returns.

        Args:
          metrics: its evaluation.
          state: the state; what only training needs is left out.
          fixed: as for `Checkpoints.save`.
          meta: likewise.
        """
        if self._checkpoints is None or self._score(metrics) <= self._score(self.metrics):
            return
        self.metrics = dict(metrics)
        kept = State(
            step=state.step, trainable=state.trainable, opt_state=(), average=state.average
        )
        found = {**meta, _STEP: int(state.step), _METRICS: self.metrics}
        self._checkpoints.save(kept, fixed, found)
        self._checkpoints.wait()

    @property
    def record(self) -> dict[str, int]:
        """What the summary says: `{"best_step": step}`, {} where nothing is kept."""
        if self._checkpoints is None or self._checkpoints.latest is None:
            return {}
        return {"best_step": self._checkpoints.latest}

    def close(self) -> None:
        """Lets the directory go."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    def _score(self, metrics: Mapping[str, float]) -> float:
        """The mean of all recalls, of what is held out or else of all sets."""
        keys = [f"eval/{name}/{recall}" for name in self._sets for recall in _RECALLS]
        return float(np.mean([metrics[key] for key in keys])) if metrics else -1.0
