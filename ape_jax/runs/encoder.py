"""The encoder of an aligned model: images and texts in, embeddings out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped

from ape_jax import arguments
from ape_jax.align.tuning import selection
from ape_jax.config.components import text_needs
from ape_jax.data import image_loader
from ape_jax.data.options import Reading
from ape_jax.data.vectors import Tokens
from ape_jax.errors import UserError, whole_number
from ape_jax.features import ragged, unreadable
from ape_jax.features.frontier import outside_tower
from ape_jax.features.outside import OutsideTower
from ape_jax.features.ragged import RaggedTokens
from ape_jax.images.batches import decoded_batches, prepared_lists
from ape_jax.images.decode import ImageRef, load_image
from ape_jax.runs import embed, languages, widths
from ape_jax.runs.aligned import AlignedModel
from ape_jax.runs.restore import restore
from ape_jax.terminal.progress import track
from ape_jax.towers.precomputed import VectorPrepare

_MOST_ROWS = 2**16  # As of eval.batch; a batch is filled up to its size.


def load(directory: str | os.PathLike[str], dim: int | None = None) -> Encoder:
    """Loads a model to encode with: one that was trained here, or a finished one.

    Args:
      directory: as for `restore`.
      dim: width of the embeddings, see `widths.settings`.

    Raises:
      UserError: as `restore`.
    """
    return Encoder(restore(directory, widths.settings(dim, "--dim")))


class Encoder:
    """Encodes images and texts with an aligned model.

    Args:
      aligned: the model and its parameters.

    Attributes:
      config: the run's resolved config.
      transform: one decoded image u8 [H, W, 3] -> the image tower's input f32 [S, S, 3].
      prepare: texts -> the text tower's `ids` and `mask`.
      scale: the trained inverse temperature.
      bias: the trained bias of the sigmoid loss, None where there is none.
      rows: images or texts a batch, where no other size is asked for.
    """

    def __init__(self, aligned: AlignedModel):
        self.config = aligned.config
        self._use(aligned)
        self.rows = self._embedder(self.config.eval.batch).rows
        self.transform = aligned.model.image.tower.prepare.transform
        self.prepare = aligned.model.text.tower.prepare
        scale, bias = aligned.model.logit_scale(aligned.trainable, aligned.frozen)
        self.scale, self.bias = float(scale), None if bias is None else float(bias)

    @property
    def dtype(self) -> str:
        """What both towers compute in, "bfloat16" or "float32"; "IMAGE/TEXT" where they differ."""
        image, text = self.config.image.dtype, self.config.text.dtype
        return image if image == text else f"{image}/{text}"

    def encode_image(
        self,
        images: Iterable[Any],
        *,
        batch_size: int | None = None,
        progress: bool = True,
    ) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings of images, decoded by a thread a core while others are encoded.

        Args:
          images: a list, or a generator that may be longer than the memory, of paths, PIL images,
            encoded bytes or uint8 arrays [H, W, 3 or 4], any mixture; of a model on precomputed
            vectors, vectors [d].
          batch_size: images a batch, rounded up to a multiple of the devices; None takes `rows`.
          progress: whether a line on stderr says how far it is, once it has taken 5 seconds.

        Returns:
          f32 [n, e].

        Raises:
          UserError: naming an image that cannot be read.
        """
        images, total = _items(images, "encode_image")
        embedder = self._embedder(self.rows if batch_size is None else batch_size)
        if arguments.truth(progress, "progress"):
            images = track(images, "encoding images", total, "images")
        if isinstance(self.transform, VectorPrepare):
            batches, name = self._vector_batches(images, embedder.rows), "pooled"
        elif (outside := self._outside("image")) is not None:
            decoded = prepared_lists(images, self._decode, embedder.rows)
            batches, name = map(outside.images, decoded), "pooled"
        else:
            batches = decoded_batches(images, self._decode, embedder.rows)
            name = "image"
        aligned = self._aligned
        z = [
            embedder.images(
                aligned.trainable, aligned.frozen, [({name: x}, np.arange(len(x)))], len(x)
            )
            for x in batches
        ]
        if not z:
            raise UserError("encode_image: expected at least one item, found an empty list")
        return np.concatenate(z)

    def encode_text(
        self,
        texts: Iterable[str] | Iterable[np.ndarray] | Tokens,
        *,
        language: str | Sequence[str] | None = None,
        batch_size: int | None = None,
        progress: bool = True,
    ) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings of texts; longer ones than the tower takes are cut.

        Args:
          texts: strings; of a model on precomputed vectors, vectors [d] or token encodings [t, d],
            or those of opened pairs, which may lie on disk.
          language: of a model with means of languages (`languages`), the language of the texts, or
            of each of them; None tells it by the script of each. A line says once where the model
            does not know it, and takes the mean over its languages.
          batch_size: texts a batch, as for `encode_image`.
          progress: as for `encode_image`.

        Returns:
          f32 [n, e].

        Raises:
          UserError: for a text that is not a string, or languages that do not go with the texts or
            the model.
        """
        if not isinstance(texts, Tokens):
            texts = list(arguments.items(texts, "encode_text", "texts"))
        embedder = self._embedder(self.rows if batch_size is None else batch_size)
        arguments.truth(progress, "progress")
        if not texts:
            raise UserError("encode_text: expected at least one item, found an empty list")
        if language is not None and self._aligned.model.languages is None:
            self.language_rows((), language)  # Says that there are none.
        if isinstance(texts, Tokens):
            if not isinstance(self.prepare, VectorPrepare):
                raise UserError("encode_text: expected strings, found precomputed vectors")
            self.prepare([texts.flat[:1]])  # Their width; values were looked at when opened.
            batches = self._token_batches(RaggedTokens(texts.flat, texts.offsets), embedder)
        elif isinstance(self.prepare, VectorPrepare):
            batches = self._token_batches(ragged.from_rows(self.prepare(texts)), embedder)
        else:
            strings = arguments.texts(texts, "encode_text")
            if (outside := self._outside("text")) is not None:
                rows = ragged.from_rows(outside.texts(strings))
                batches = self._token_batches(rows, embedder)
            else:
                batches = embed.text_batches(self.prepare, strings, embedder.rows)
            if (spoken := self.language_rows(strings, language)) is not None:
                batches = embed.with_language(batches, spoken)
        if progress:
            count = -(-len(texts) // embedder.rows)
            batches = track(batches, "encoding texts", count, "batches")
        return embedder.texts(self._aligned.trainable, self._aligned.frozen, batches, len(texts))

    def _use(self, aligned: AlignedModel) -> None:
        """Encodes with another model from now on, of the same config."""
        self._aligned, self._embedders = aligned, dict[int, embed.Embedder]()

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages whose means the model takes off texts, () where there are none."""
        known = self._aligned.model.languages
        return () if known is None else tuple(name for name, _ in known.names)

    def language_rows(
        self, texts: Sequence[str], language: str | Sequence[str] | None = None
    ) -> Int[np.ndarray, " n"] | None:
        """The row of each text's mean; see `languages.rows_of`."""
        return languages.rows_of(self._aligned, texts, language)

    def _outside(self, kind: Literal["image", "text"]) -> OutsideTower | None:
        """The tower of a side where another library runs it, None where JAX does."""
        model = self._aligned.model
        return outside_tower(model.image if kind == "image" else model.text, self.rows)

    def _token_batches(
        self, tokens: RaggedTokens, embedder: embed.Embedder
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Batches of token encodings that were made outside of JAX."""
        if "token_index" in text_needs(self.config.text.head.name):
            tokens = tokens.with_padded_length()
        return embed.token_batches(tokens, embedder.rows, embedder.groups)

    def encode_batches(
        self, kind: Literal["image", "text"], batches: embed.Batches, count: int
    ) -> Float[np.ndarray, "n e"]:
        """Unit-length embeddings f32 [n, e] of prepared inputs, n of them in all (`Embedder`)."""
        embedder = self._embedder(self.rows)
        run = embedder.images if kind == "image" else embedder.texts
        return run(self._aligned.trainable, self._aligned.frozen, batches, count)

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
            outside=self._outside("image"),
            background=self.config.data.background,
            skipped=skipped,
            done=done,
        )
        z = self.encode_batches("image", batches, len(records))
        read = np.ones(len(records), bool)
        read[list(skipped.indices)] = False
        return (z if len(z) else np.zeros((len(records), 0), np.float32)), read

    def leave_out_unreadable(self, pairs: unreadable.Images, name: str) -> unreadable.Images:
        """The pairs, or labelled images, whose image can be read; says which it leaves out.

        Args:
          pairs: the pairs.
          name: what to call them.

        Raises:
          UserError: more would be left out than `data.max_skipped` allows.
        """
        return unreadable.leave_out_unreadable(pairs, Reading.of(self.config.data), name)

    def _embedder(self, rows: int) -> embed.Embedder:
        """The embedder of so many rows a batch; each is compiled once."""
        rows = whole_number(rows, "batch_size")
        if rows > _MOST_ROWS:
            raise UserError(f"batch_size: expected at most {_MOST_ROWS}, found {rows}")
        if rows not in self._embedders:
            self._embedders[rows] = embed.Embedder(self._aligned.model, self._aligned.mesh, rows)
        return self._embedders[rows]

    def _vector_batches(
        self, vectors: Iterable[Any], rows: int
    ) -> Iterator[Float32[np.ndarray, "b d"]]:
        """Given vectors, checked, at most `rows` at a time."""
        left = iter(vectors)
        while batch := list(itertools.islice(left, rows)):
            yield np.concatenate(
                self.transform([x.content if isinstance(x, ImageRef) else x for x in batch])
            )

    def _decode(self, image: Any) -> Shaped[np.ndarray, "_ _ 3"]:
        return self.transform(load_image(image, background=self.config.data.background))


def _items(images: Iterable[Any], what: str) -> tuple[Iterable[Any], int | None]:
    """The images and their number where it is known.

    A lone image or record is a mistake that would give a wrong answer or a traceback.
    """
    if isinstance(images, np.ndarray) and images.ndim == 3:
        raise UserError(f"{what}: expected a list of images, found one array; write [x]")
    arguments.items(images, what, "images")
    return images, len(images) if isinstance(images, Sized) else None
