"""An aligned model as it is used: images and texts in, embeddings and their likeness out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import Float, PyTree

from ape_jax import head_names
from ape_jax.align import selection
from ape_jax.data.images import ImageRef, load_image
from ape_jax.data.pairs import Pairs
from ape_jax.errors import UserError
from ape_jax.evaluators import prompts, zeroshot
from ape_jax.features import ragged
from ape_jax.towers.given import VectorPrepare
from ape_jax.training import dataset
from ape_jax.training.embed import Embedder, pooled_batches, text_batches, token_batches


class Aligner:
    """An aligned image-text model.

    Example:
      model = ape_jax.load("runs/demo")
      p = model.classify(["cat.png"], ["cat", "dog"], templates="simple")

    Attributes:
      config: the run's resolved config.
      scale: the trained inverse temperature.
      bias: of the logits, of a model with a sigmoid loss; None without one.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        trainable: PyTree,
        frozen: PyTree,
        embedder: Embedder,
        image_transform: Any,
        prepare_texts: Any,
        scale: float,
        bias: float | None = None,
    ):
        self.config, self.scale, self.bias = config, scale, bias
        self._trainable, self._frozen, self._embedder = trainable, frozen, embedder
        self._transform, self._prepare = image_transform, prepare_texts

    def encode_image(self, images: Sequence[Any]) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings of images.

        Args:
          images: paths, PIL images, encoded bytes or uint8 arrays [H, W, 3 or 4], any mixture; of a
            model on given vectors, vectors [d].

        Returns:
          f32 [n, e].

        Raises:
          UserError: naming an image that cannot be read.
        """
        images = _sequence(images, "encode_image")
        if isinstance(self._transform, VectorPrepare):
            vectors = [x.content if isinstance(x, ImageRef) else x for x in images]
            batches = pooled_batches(np.concatenate(self._transform(vectors)), self._embedder.rows)
            return self._embedder.images(self._trainable, self._frozen, batches, len(images))
        return self._embedder.images(
            self._trainable, self._frozen, self._image_batches(images), len(images)
        )

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings of texts; longer ones than the tower takes are cut.

        Args:
          texts: strings; of a model on given vectors, vectors [d] or token encodings [t, d].

        Returns:
          f32 [n, e].

        Raises:
          UserError: for a text that is not a string.
        """
        texts = _sequence(texts, "encode_text")
        if isinstance(self._prepare, VectorPrepare):
            tokens = ragged.from_rows(self._prepare(texts))
            if "places" in head_names.wants(self.config.text.head.name):
                tokens = tokens.with_frame()
            batches = token_batches(tokens, self._embedder.rows, self._embedder.groups)
            return self._embedder.texts(self._trainable, self._frozen, batches, len(texts))
        if bad := [t for t in texts if not isinstance(t, str)]:
            raise UserError(f"encode_text: expected strings, found {type(bad[0]).__name__}")
        batches = text_batches(self._prepare, texts, self._embedder.rows)
        return self._embedder.texts(self._trainable, self._frozen, batches, len(texts))

    def classify(
        self, images: Sequence[Any], classnames: Sequence[str], templates: str = "none"
    ) -> Float[np.ndarray, "n c"]:
        """Zero-shot probabilities: softmax over scaled similarities to the classes.

        Args:
          images: as in `encode_image`.
          classnames: c names.
          templates: `none`, `simple`, `openai` or a file with one `{}` a line.

        Returns:
          f32 [n, c], rows summing to 1.
        """
        classnames = _sequence(classnames, "classify")
        filled = prompts.resolve_templates(templates)
        classes = zeroshot.class_embeddings(self.encode_text, classnames, filled)
        logits = self.scale * (self.encode_image(images) @ classes.T).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    def retrieve(
        self, queries: Sequence[str], images: Sequence[Any], k: int = 5
    ) -> list[list[tuple[int, float]]]:
        """The best images for each text.

        Args:
          queries: texts.
          images: as in `encode_image`.
          k: how many; fewer where there are fewer images.

        Returns:
          For each query, places in `images` and cosines, best first.
        """
        scores = self.encode_text(queries) @ self.encode_image(images).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return [[(int(i), float(row[i])) for i in places] for places, row in zip(best, scores)]

    def shares(self) -> list[selection.Share]:
        """How much of each group of parameters was trained."""
        return selection.shares(self._trainable, self._frozen)

    def leave_out_unreadable(self, pairs: Pairs, name: str) -> Pairs:
        """The records whose image can be read; says which it leaves out.

        Args:
          pairs: the records.
          name: what to call them.
        """
        return dataset.leave_out_unreadable(pairs, self._transform, self.config, name)

    def _image_batches(self, images: Sequence[Any]) -> Iterator[tuple[Any, np.ndarray]]:
        rows, background = self._embedder.rows, tuple(self.config.data.background)
        for start in range(0, len(images), rows):
            chosen = images[start : start + rows]
            batch = [self._transform(load_image(x, background=background)) for x in chosen]
            yield {"image": np.stack(batch)}, np.arange(start, start + len(chosen))


def _sequence(items: Sequence[Any], what: str) -> list[Any]:
    """A list; a lone string or nothing is a mistake that would give a wrong answer quietly."""
    if isinstance(items, str | bytes) or not hasattr(items, "__len__"):
        raise UserError(f"{what}: expected a list, found one {type(items).__name__}; write [x]")
    if not len(items):
        raise UserError(f"{what}: expected at least one item, found an empty list")
    return list(items)
