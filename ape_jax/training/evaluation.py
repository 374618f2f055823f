"""Evaluating during training: retrieval on the config's `data.eval` sets."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree

from ape_jax.align.languages import Languages
from ape_jax.data import image_loader
from ape_jax.evaluators import languages as languages_lib
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
      languages: that the model knows, None where captions have none.
    """

    name: str
    dataset: Dataset
    transform: Any
    prepare: Any
    background: Sequence[int]
    resumed: bool = False
    languages: Languages | None = None

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
        ztxt = self._spoken(embedder, trainable, frozen)
        if ztxt is not None:
            zimg = embedder.images(trainable, frozen, images, len(data.pairs))
            return zimg, ztxt, data.captions.image_index
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

    def _spoken(
        self, embedder: embed.Embedder, trainable: PyTree, frozen: PyTree
    ) -> np.ndarray | None:
        """Embeddings of each text in each of its languages, a row for each caption."""
        data, spoken = self.dataset, self.dataset.captions.spoken
        if self.languages is None or spoken is None or data.tokens is None:
            return None
        row = self.languages.named(spoken.names)[spoken.index]
        keys = data.captions.text_index * self.languages.count + row
        distinct, index = np.unique(keys, return_inverse=True)
        tokens = data.tokens.rows(distinct // self.languages.count)
        batches = embed.token_batches(tokens, embedder.rows, embedder.groups)
        batches = embed.with_language(batches, distinct % self.languages.count)
        return embedder.texts(trainable, frozen, batches, len(distinct))[index]

    @property
    def images(self) -> dict[str, int]:
        """Number of images, of the set and of those with captions in each language."""
        captions, found = self.dataset.captions, {self.name: len(self.dataset.pairs)}
        if captions.spoken is None:
            return found
        for number, language in enumerate(captions.spoken.names):
            images = captions.image_index[captions.spoken.index == number]
            found[f"{self.name}{languages_lib.JOINT}{language}"] = len(np.unique(images))
        return found

    @property
    def chance(self) -> dict[str, dict[str, float]]:
        """What a random order would have, of the set and of its languages."""
        captions, name = self.dataset.captions, self.name
        found = {name: retrieval.chance_metrics(len(self.dataset.pairs), captions.image_index)}
        if captions.spoken is None:
            return found
        spoken = captions.spoken.names, captions.spoken.index
        by_name = languages_lib.chance(captions.image_index, *spoken)
        return found | languages_lib.named(name, by_name)

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
    ranks, metrics = {}, {}
    for task in tasks:
        embedded = task.embed(embedder, trainable, frozen)
        ranks[task.name] = retrieval.retrieval_ranks(*embedded)
        metrics[task.name] = ranks[task.name].metrics()
        if (spoken := task.dataset.captions.spoken) is not None:
            found = languages_lib.by_language(*embedded, spoken.names, spoken.index)
            metrics |= languages_lib.named(task.name, found)
    if keep is not None:
        ranks_file.write(keep, {task.name: task.dataset.pairs for task in tasks}, ranks)
    return {
        f"eval/{name}/{key}": float(value)
        for name, found in metrics.items()
        for key, value in found.items()
    }
