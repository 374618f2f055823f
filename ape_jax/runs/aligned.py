"""An aligned image-text model as training makes it, and as everything after training takes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from ape_jax.align.model import Model
from ape_jax.align.unpaired import TEACHER
from ape_jax.config import Config

SOLVED, LANGUAGES = "closed form", "languages"  # In `meta`.
STATISTICS = "statistics"  # In `frozen`: a checkpoint holds them, beside what was trained.


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignedModel:
    """A model and its parameters: made by training, closed forms, import and restore alike.

    Attributes:
      config: the resolved config.
      model: the model, without weights.
      trainable: the trained parameters, on the mesh; their moving average where one was kept.
      frozen: the others, statistics included.
      meta: JSON: towers, pairs and closed form by name and hash, as a checkpoint keeps it.
      mesh: the devices that the parameters lie on.
      step: of the checkpoint.
      source: the directory or file that it was loaded from, '' for one that is being trained.
      summary: the run's `summary.json`, {} where there is none.
      unread: of a finished model, tensors of its file that no output depends on.
    """

    config: Config
    model: Model
    trainable: PyTree
    frozen: PyTree
    meta: Mapping[str, Any]
    mesh: Mesh
    step: int = 0
    source: str = ""
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unread: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def is_imported(self) -> bool:
        """Whether it is a finished model that was taken over, with nothing trained on pairs."""
        return not self.config.data.pairs

    @property
    def dim(self) -> int:
        """The width that its embeddings are cut to, 0 where they are not."""
        return self.model.dim

    @property
    def solved(self) -> Mapping[str, Any] | None:
        """The record of the closed form that the heads are or started from, None without one."""
        return self.meta.get(SOLVED)

    @property
    def statistics(self) -> PyTree:
        """The frozen parameters that a checkpoint holds; {} where nothing is standardised."""
        kept = (STATISTICS, TEACHER)
        return {name: tree for name, tree in self.frozen.items() if name in kept}
