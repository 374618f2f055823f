"""Embedding many images or captions with a model: evaluation and inference both use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Int32, PyTree

from ape_jax.align.model import Model
from ape_jax.data import image_loader
from ape_jax.errors import UserError
from ape_jax.features.outside import OutsideTower
from ape_jax.features.ragged import RaggedTokens, bucket
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.storage.row_array import RowArray, blocks

Batches = Iterable[tuple[Mapping[str, Any], np.ndarray]]


class Embedder:
    """Runs both sides of a model, from raw inputs or from features encoded before.

    A batch is a dict of host arrays with at most `rows` rows (every process gives all of them) and
    the places its rows take in the result. It is filled up to `rows`, so that a last partial batch
    costs no second compile, and what was filled in is dropped. Packed captions come filled.

    Args:
      model: the model.
      mesh: the devices.
      batch: rows a call, rounded up to a multiple of the number of devices.
    """

    def __init__(self, model: Model, mesh: Mesh, batch: int):
        self._mesh = mesh
        self.groups = mesh.size
        self.rows = mesh_lib.round_up(batch, mesh)

        def images(trainable: PyTree, frozen: PyTree, batch: Mapping[str, Array]) -> Array:
            return model.embed(trainable, frozen, model.image_features(frozen, batch))

        def texts(trainable: PyTree, frozen: PyTree, batch: Mapping[str, Array]) -> Array:
            return model.embed(trainable, frozen, model.text_features(frozen, batch))

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
        """Unit-length embeddings f32 [n, E] of batches of captions (`Model.text_features`)."""
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
            rows = self.groups if "lengths" in batch else self.rows
            placed = mesh_lib.place_whole_batch(batch, self._mesh, rows)
            out = np.asarray(embed(trainable, frozen, placed))[: len(places)]
            if z is None:
                z = np.zeros((count, out.shape[-1]), np.float32)
            z[places] = out
        return np.zeros((0, 0), np.float32) if z is None else z


def image_batches(
    images: Float[np.ndarray, "n s s 3"], rows: int
) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches of images that are decoded and prepared."""
    for start in range(0, len(images), rows):
        places = np.arange(start, min(start + rows, len(images)))
        yield {"image": images[places]}, places


def pooled_batches(pooled: RowArray, rows: int) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches of the first view of images that were encoded before.

    Args:
      pooled: features [n, V, d] or hidden states [n, V, T, d], in memory or on disk.
      rows: images a batch.
    """
    for block in blocks(len(pooled), rows):
        yield {"pooled": pooled[block][:, 0]}, np.arange(block.start, block.stop)


def readable_batches(
    records: Sequence[Any],
    transform: Any,
    rows: int,
    *,
    outside: OutsideTower | None = None,
    background: tuple[int, int, int],
    skipped: image_loader.Skipped,
    done: Callable[[int], None],
) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches of images that several threads decode; what cannot be read is left out.

    Args:
      records: things with an `image`.
      transform: the image tower's own.
      rows: images a batch.
      outside: the image tower where another library runs it; batches then hold its features.
      background: RGB under transparent pixels.
      skipped: is filled with the records that cannot be read.
      done: is told how many records were gone through.
    """
    batches = image_loader.image_batches(
        records,
        transform=transform,
        batch=rows,
        on_error="skip",
        background=background,
        skipped=skipped,
    )
    through = 0
    try:
        for batch in batches:
            valid = batch["valid"]
            places = batch["index"][valid]
            if outside is None:
                yield {"image": batch["image"][valid]}, places
            else:
                yield {"pooled": outside.images(batch["image"])}, places
            done(through := int(places[-1]) + 1)
    except UserError:
        if len(skipped) < len(records):
            raise
    if through < len(records):  # The last ones cannot be read.
        done(len(records))


def token_batches(tokens: RaggedTokens, rows: int, groups: int) -> Iterator[tuple[Any, np.ndarray]]:
    """Packed batches of token encodings, all of one size: one compiled shape.

    Args:
      tokens: the captions' encodings.
      rows: captions a batch; the last one is filled up with copies of the last caption.
      groups: of a batch, a divisor of `rows`.
    """
    starts = range(0, len(tokens), rows)
    chosen = [np.minimum(np.arange(start, start + rows), len(tokens) - 1) for start in starts]
    size = bucket(max((tokens.largest_group(batch, groups) for batch in chosen), default=0))
    for batch in chosen:
        places = np.arange(batch[0], min(batch[0] + rows, len(tokens)))
        yield tokens.batch(batch, groups, size), places


def padded_batches(tokens: RaggedTokens, rows: int) -> Iterator[tuple[Any, np.ndarray]]:
    """Padded batches of captions' hidden states, longest first: few compiled shapes.

    Args:
      tokens: the captions' hidden states.
      rows: captions a batch.
    """
    order = np.argsort(-tokens.lengths, kind="stable")
    for start in range(0, len(tokens), rows):
        places = order[start : start + rows]
        padded, mask = tokens.padded(places, -(-int(tokens.lengths[places[0]]) // 8) * 8)
        yield {"tokens": padded, "mask": mask}, places


def with_language(batches: Batches, language: Int[np.ndarray, " n"]) -> Batches:
    """The batches of n captions with the rows of their languages' means.

    Args:
      batches: as the other functions make them.
      language: i64 [n], the row of each caption in the model's table of means.
    """
    for batch, places in batches:
        rows = language[places].astype(np.int32)
        if "lengths" in batch:  # Filled up with copies of the last caption.
            full = np.full(batch["lengths"].size, rows[-1], np.int32)
            full[: len(rows)] = rows
            rows = full.reshape(batch["lengths"].shape)
        yield {**batch, "language": rows}, places


def text_batches(
    prepare: Callable[[list[str]], Mapping[str, np.ndarray]], texts: Sequence[str], rows: int
) -> Iterator[tuple[Any, np.ndarray]]:
    """Tokenised batches of texts, those of like length together."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    for start in range(0, len(texts), rows):
        places = order[start : start + rows]
        yield prepare([texts[int(i)] for i in places]), places


def token_id_batches(
    ids: Int32[np.ndarray, "n t"], mask: Bool[np.ndarray, "n t"], rows: int
) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches of texts that are tokenised already, those of like length together.

    Columns that are padding throughout a batch are left out, but for a length that is a multiple
    of 8, as in the batches of `text_batches`: few compiled shapes.
    """
    lengths = mask.sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(ids), rows):
        places = order[start : start + rows]
        length = max(-(-int(lengths[places[-1]]) // 8) * 8, 8)
        yield {"ids": ids[places, :length], "mask": mask[places, :length]}, places
