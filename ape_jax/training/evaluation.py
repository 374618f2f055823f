"""Evaluating during training: retrieval on the config's `data.eval` sets."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree

from ape_jax.data import image_loader
from ape_jax.evaluators import retrieval
from ape_jax.features.dataset import Dataset
from ape_jax.runs import embed
from ape_jax.runs.directory import ranks_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalTask:
    """Retrieval both ways on one set of pairs.

    Attributes:
      name: of the metrics, `eval/<name>/i2t_r1`.
      dataset: the pairs, encoded up to the frontier.
      transform: the image tower's preparation, for images that are not encoded yet.
      prepare: the text tower's, likewise.
      background: under images with alpha.
      resumed: whether the captions' features are hidden states, from which the tower goes on.
    """

    name: str
    dataset: Dataset
    transform: Any
    prepare: Any
    background: Sequence[int]
    resumed: bool = False

    def embed(
        self, embedder: embed.Embedder, trainable: PyTree, frozen: PyTree
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`(zimg [n, E], ztxt [m, E], owner [m])`, a row of ztxt for each caption of each image."""
        data, rows = self.dataset, embedder.rows
        images = (
            embed.pooled_batches(data.pooled, rows)
            if data.pooled is not None
            else self._raw_images(rows)
        )
        if data.tokens is None:
            texts = embed.text_batches(self.prepare, data.captions.texts, rows)
        elif self.resumed:
            texts = embed.padded_batches(data.tokens, rows)
        else:
            texts = embed.token_batches(data.tokens, rows, embedder.groups)
        zimg = embedder.images(trainable, frozen, images, len(data.pairs))
        ztxt = embedder.texts(trainable, frozen, texts, len(data.captions.texts))
        return zimg, ztxt[data.captions.text_index], data.captions.image_index

    def rank(self, embedder: embed.Embedder, trainable: PyTree, frozen: PyTree) -> retrieval.Ranks:
        """The ranks of all queries."""
        return retrieval.retrieval_ranks(*self.embed(embedder, trainable, frozen))

    @property
    def chance(self) -> dict[str, float]:
        """What a random order would have, named as `retrieval.retrieval_metrics` does."""
        return retrieval.chance_metrics(len(self.dataset.pairs), self.dataset.captions.image_index)

    def _raw_images(self, rows: int) -> embed.Batches:
        batches = image_loader.image_batches(
            self.dataset.pairs,
            transform=self.transform,
            batch=rows,
            on_error="error",
            background=self.background,
        )
        for batch in batches:
            yield {"image": batch["image"][batch["valid"]]}, batch["index"][batch["valid"]]


def evaluate_all(
    tasks: Sequence[RetrievalTask],
    embedder: embed.Embedder,
    trainable: PyTree,
    frozen: PyTree,
    keep: pathlib.Path | None = None,
) -> Mapping[str, float]:
    """The metrics of all tasks in one flat dict, named `eval/<name>/...`.

    Args:
      tasks: what is evaluated.
      embedder: embeds images and captions.
      trainable: the trained parameters.
      frozen: the others.
      keep: the work directory in which the ranks of all queries are kept; None keeps none.
    """
    ranks = {task.name: task.rank(embedder, trainable, frozen) for task in tasks}
    if keep is not None:
        ranks_file.write(keep, {task.name: task.dataset.pairs for task in tasks}, ranks)
    return {
        f"eval/{name}/{key}": float(value)
        for name, found in ranks.items()
        for key, value in found.metrics().items()
    }
