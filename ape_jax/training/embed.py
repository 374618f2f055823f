"""Embedding many images or captions with a model: evaluation and inference both use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from ape_jax.align.model import Model
from ape_jax.features.ragged import RaggedTokens
from ape_jax.parallel import mesh as mesh_lib

Batches = Iterable[tuple[Mapping[str, Any], np.ndarray]]


class Embedder:
    """Runs both sides of a model, from raw inputs or from features encoded before.

    A batch is a dict of host arrays with at most `rows` rows (every process gives all of them) and
    the places its rows take in the result. It is filled up to `rows`, so that a last partial batch
    costs no second compile, and what was filled in is dropped.

    Args:
      model: the model.
      mesh: the devices.
      batch: rows a call, rounded up to a multiple of the number of devices.
    """

    def __init__(self, model: Model, mesh: Mesh, batch: int):
        self._mesh = mesh
        self.rows = mesh_lib.round_up(batch, mesh)

        def images(trainable: PyTree, frozen: PyTree, batch: Mapping[str, Array]) -> Array:
            return model.align_images(trainable, model.image_features(frozen, batch))

        def texts(trainable: PyTree, frozen: PyTree, batch: Mapping[str, Array]) -> Array:
            return model.align_texts(trainable, model.text_features(frozen, batch))

        whole = mesh_lib.replicated(mesh)
        self._images = jax.jit(images, out_shardings=whole)
        self._texts = jax.jit(texts, out_shardings=whole)

    def images(
        self, trainable: PyTree, frozen: PyTree, batches: Batches, count: int
    ) -> Float[np.ndarray, "n E"]:
        """Unit-length embeddings f32 [n, E] of batches with `image` or `pooled`."""
        return self._run(self._images, trainable, frozen, batches, count)

    def texts(
        self, trainable: PyTree, frozen: PyTree, batches: Batches, count: int
    ) -> Float[np.ndarray, "n E"]:
        """Unit-length embeddings f32 [n, E] of batches with `mask` and `ids` or `tokens`."""
        return self._run(self._texts, trainable, frozen, batches, count)

    def _run(
        self,
        embed: Callable[[PyTree, PyTree, Mapping[str, Array]], Array],
        trainable: PyTree,
        frozen: PyTree,
        batches: Batches,
        count: int,
    ) -> Float[np.ndarray, "n E"]:
        z: np.ndarray | None = None
        for batch, places in batches:
            placed = mesh_lib.place_whole_batch(batch, self._mesh, self.rows)
            out = np.asarray(embed(trainable, frozen, placed))[: len(places)]
            if z is None:
                z = np.zeros((count, out.shape[-1]), np.float32)
            z[places] = out
        return np.zeros((0, 0), np.float32) if z is None else z


def pooled_batches(pooled: Float[np.ndarray, "n d"], rows: int) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches of pooled image features that were encoded before."""
    for start in range(0, len(pooled), rows):
        places = np.arange(start, min(start + rows, len(pooled)))
        yield {"pooled": pooled[places]}, places


def token_batches(tokens: RaggedTokens, rows: int) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches of token encodings, all padded to the longest of all: one compiled shape."""
    length = -(-tokens.longest // 8) * 8
    for start in range(0, len(tokens), rows):
        places = np.arange(start, min(start + rows, len(tokens)))
        padded, mask = tokens.padded(places, length)
        yield {"tokens": padded, "mask": mask}, places


def text_batches(
    prepare: Callable[[list[str]], Mapping[str, np.ndarray]], texts: Sequence[str], rows: int
) -> Iterator[tuple[Any, np.ndarray]]:
    """Tokenised batches of texts, those of like length together."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    for start in range(0, len(texts), rows):
        places = order[start : start + rows]
        yield prepare([texts[i] for i in places]), places
