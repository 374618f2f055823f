"""An aligned model as it is used: images and texts in, embeddings and their likeness out."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from ape_jax.align.tuning import selection
from ape_jax.config.components import text_needs
from ape_jax.data import image_loader
from ape_jax.data.pairs import Pairs
from ape_jax.errors import UserError
from ape_jax.evaluators import prompts, zeroshot
from ape_jax.features import ragged, unreadable
from ape_jax.images.decode import ImageRef, load_image
from ape_jax.runs import embed
from ape_jax.runs.aligned import AlignedModel
from ape_jax.runs.restore import restore
from ape_jax.towers.precomputed import VectorPrepare


def load(directory: str | os.PathLike[str]) -> Aligner:
    """Loads a model to encode with: one that was trained here, or a finished one.

    Args:
      directory: as for `restore`.

    Raises:
      UserError: as `restore`.
    """
    return Aligner(restore(directory))


class Aligner:
    """An aligned image-text model at work.

    Example:
      model = ape_jax.load("runs/demo")
      p = model.classify(["cat.png"], ["cat", "dog"], templates="simple")

    Args:
      aligned: the model and its parameters.

    Attributes:
      config: the run's resolved config.
      transform: one decoded image u8 [H, W, 3] -> the image tower's input f32 [S, S, 3].
      prepare: texts -> the text tower's `ids` and `mask`.
      scale: the trained inverse temperature.
      bias: the trained bias of the sigmoid loss, None where there is none.
      rows: images or texts a batch.
    """

    def __init__(self, aligned: AlignedModel):
        self._aligned, self.config = aligned, aligned.config
        self._embedder = embed.Embedder(aligned.model, aligned.mesh, self.config.eval.batch)
        self.rows = self._embedder.rows
        self.transform = aligned.model.image.tower.prepare.transform
        self.prepare = aligned.model.text.tower.prepare
        scale, bias = aligned.model.logit_scale(aligned.trainable, aligned.frozen)
        self.scale, self.bias = float(scale), None if bias is None else float(bias)

    def encode_image(self, images: Sequence[Any] | np.ndarray) -> Float[np.ndarray, "n e"]:
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
        if isinstance(self.transform, VectorPrepare):
            vectors = [x.content if isinstance(x, ImageRef) else x for x in images]
            batches = embed.pooled_batches(np.concatenate(self.transform(vectors)), self.rows)
        else:
            batches = self._image_batches(images)
        return self.encode_batches("image", batches, len(images))

    def encode_text(
        self, texts: Sequence[str] | Sequence[np.ndarray] | np.ndarray
    ) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings of texts; longer ones than the tower takes are cut.

        Args:
          texts: strings; of a model on given vectors, vectors [d] or token encodings [t, d].

        Returns:
          f32 [n, e].

        Raises:
          UserError: for a text that is not a string.
        """
        texts = _sequence(texts, "encode_text")
        if isinstance(self.prepare, VectorPrepare):
            tokens = ragged.from_rows(self.prepare(texts))
            if "places" in text_needs(self.config.text.head.name):
                tokens = tokens.with_padded_length()
            batches = embed.token_batches(tokens, self.rows, self._embedder.groups)
            return self.encode_batches("text", batches, len(texts))
        strings = [text for text in texts if isinstance(text, str)]
        if len(strings) < len(texts):
            bad = next(text for text in texts if not isinstance(text, str))
            raise UserError(f"encode_text: expected strings, found {type(bad).__name__}")
        return self.encode_batches(
            "text", embed.text_batches(self.prepare, strings, self.rows), len(strings)
        )

    def encode_batches(
        self, kind: Literal["image", "text"], batches: embed.Batches, count: int
    ) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings f32 [n, e] of prepared inputs, n of them in all (`Embedder`)."""
        run = self._embedder.images if kind == "image" else self._embedder.texts
        return run(self._aligned.trainable, self._aligned.frozen, batches, count)

    def classify(
        self,
        images: Sequence[Any],
        classnames: Sequence[str],
        templates: str | Sequence[str] = "none",
    ) -> Float[np.ndarray, "n c"]:
        """Zero-shot probabilities: softmax over scaled similarities to the classes.

        Args:
          images: as in `encode_image`.
          classnames: c names.
          templates: a name or a file as `--templates` takes it (`none`, `simple`, `openai`, ...),
            or a list of texts, each with one `{}`.

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
        return selection.shares(self._aligned.trainable, self._aligned.frozen)

    def encode_readable(
        self, records: Sequence[Any], skipped: image_loader.Skipped, done: Callable[[int], None]
    ) -> tuple[Float[np.ndarray, "n e"], Bool[np.ndarray, " n"]]:
        """As `encode_image`, decoded by several threads; images that cannot be read are left out.

        Args:
          records: n things with an `image`, as of `Pairs`.
          skipped: is filled with those that cannot be read.
          done: is told how many were gone through.

        Returns:
          f32 [n, e], and bool [n] where an image was read; the other rows are zero.
        """
        batches = embed.readable_batches(
            records,
            self.transform,
            self.rows,
            background=self.config.data.background,
            skipped=skipped,
            done=done,
        )
        z = self.encode_batches("image", batches, len(records))
        read = np.ones(len(records), bool)
        read[list(skipped.indices)] = False
        return (z if len(z) else np.zeros((len(records), 0), np.float32)), read

    def leave_out_unreadable(self, pairs: Pairs, name: str) -> Pairs:
        """The records whose image can be read; says which it leaves out.

        Args:
          pairs: the records.
          name: what to call them.
        """
        return unreadable.leave_out_unreadable(pairs, self.transform, name)

    def _image_batches(self, images: Sequence[Any]) -> Iterator[tuple[Any, np.ndarray]]:
        background = self.config.data.background
        for start in range(0, len(images), self.rows):
            chosen = images[start : start + self.rows]
            batch = [self.transform(load_image(x, background=background)) for x in chosen]
            yield {"image": np.stack(batch)}, np.arange(start, start + len(chosen))


def _sequence(items: Collection[Any], what: str) -> list[Any]:
    """A list; a lone string or nothing is a mistake that would give a wrong answer quietly."""
    if isinstance(items, str | bytes) or not hasattr(items, "__len__"):
        raise UserError(f"{what}: expected a list, found one {type(items).__name__}; write [x]")
    if not len(items):
        raise UserError(f"{what}: expected at least one item, found an empty list")
    return list(items)
