"""Running frozen towers of other libraries over all images or all captions, once."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
from jaxtyping import Float32, Int

from ape_jax.features.encoder import ImageRows, TextRows, report_cut
from ape_jax.terminal.progress import track
from ape_jax.towers.outside import OWN, OutsideEncoder, same_length_batches
from ape_jax.towers.tower import Tower, pool_tokens

T = TypeVar("T")
R = TypeVar("R")

_TOKENISED_TOGETHER = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutsideTower:
    """A `FeatureEncoder` outside of JAX: a tower with a model of another library.

    The mesh has no part in it: the library runs on a device of its own.

    Attributes:
      tower: the tower, with widths for this layer and pooling.
      layer: which hidden state is read.
      pooling: how images are pooled; of captions "own" gives one vector each, as if it were the
        only token, and everything else all tokens.
      batch: rows a call.
    """

    tower: Tower
    layer: int = -1
    pooling: str = "none"
    batch: int = 64

    @property
    def rows(self) -> int:
        """Rows a call."""
        return self.batch

    @property
    def _encoder(self) -> OutsideEncoder:
        if self.tower.outside is None:
            raise ValueError(f"{self.tower.spec} is run by JAX")
        return self.tower.outside

    def image_shape(self) -> tuple[int, ...]:
        """Shape of an image's features, [d] or [T, d]; all images have as many tokens."""
        blank = np.zeros((64, 64, 3), np.uint8)
        return self._pooled(self._encoder.prepare([blank])).shape[1:]

    def token_width(self) -> int:
        """Width of a token's encoding, or of the one vector of a caption."""
        return self.tower.config.width

    def stream_images(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[ImageRows]:
        """Features of images; a batch is prepared while the one before it is encoded."""

        def prepare(batch: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
            return batch, self._encoder.prepare(batch["image"])

        for batch, inputs in _one_ahead(prepare, batches):
            valid = batch["valid"]
            yield batch["index"][valid], batch["view"][valid], self._pooled(inputs)

    def images(self, images: Sequence[np.ndarray]) -> Float32[np.ndarray, "b ..."]:
        """Features of decoded images u8 [H, W, 3]."""
        return self._pooled(self._encoder.prepare(images))

    def _pooled(self, inputs: Mapping[str, Any]) -> Float32[np.ndarray, "b ..."]:
        if self.pooling == OWN:
            return self._encoder.own(inputs)
        tokens, mask = self._encoder.tokens(inputs, self.layer)
        if self.pooling == "none":
            return tokens
        return np.asarray(pool_tokens(tokens, mask, self.pooling, self.tower.config))

    def texts(self, texts: Sequence[str]) -> list[Float32[np.ndarray, "_ _"]]:
        """Encodings [t, d] of texts, in their order."""
        rows: dict[int, np.ndarray] = {}
        for index, encoded in self.stream_texts(texts, "texts"):
            rows |= zip(map(int, index), encoded)
        return [rows[i] for i in range(len(texts))]

    def stream_texts(self, texts: Sequence[str], what: str = "captions") -> Iterator[TextRows]:
        """Encodings of texts, longest first; see `FeatureEncoder`.

        Texts are encoded together with others of the same length, so that nothing is padded: what
        a library makes of padding differs, and a text's features would depend on its neighbours.
        """
        if not len(texts):
            return
        batches = list(same_length_batches(self._lengths(texts, what), self.rows))

        def prepare(index: np.ndarray) -> tuple[np.ndarray, Mapping[str, Any]]:
            return index, self._encoder.prepare([texts[int(i)] for i in index])

        for index, inputs in _one_ahead(prepare, batches):
            if self.pooling == OWN:
                yield index, list(self._encoder.own(inputs)[:, None])
                continue
            tokens, mask = self._encoder.tokens(inputs, self.layer)
            yield index, [row[kept] for row, kept in zip(tokens, mask)]

    def token_counts(self, texts: Sequence[str], what: str) -> Int[np.ndarray, "n"]:
        """Encodings that each text has; see `FeatureEncoder`."""
        return np.ones(len(texts), int) if self.pooling == OWN else self._lengths(texts, what)

    def _lengths(self, texts: Sequence[str], what: str) -> Int[np.ndarray, "n"]:
        """Tokens of each text that the model reads."""
        most = int(getattr(self._encoder, "max_length", 10**6))
        starts = range(0, len(texts), _TOKENISED_TOGETHER)
        lengths = np.concatenate(
            [
                self._encoder.lengths(texts[start : start + _TOKENISED_TOGETHER])
                for start in track(starts, f"tokenising {what}", len(starts), "blocks of 4096")
            ]
        )
        report_cut(what, int((lengths > most).sum()), len(texts), most)
        return np.minimum(lengths, most)

    def ids_of(self, texts: Sequence[str], lengths: Int[np.ndarray, "n"]) -> NoReturn:
        """Raises ValueError: heads that read ids are refused with such a tower."""
        raise ValueError("a tower that another library runs gives no ids")


def _one_ahead(prepare: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Prepared items; the next one is prepared in a thread while the reader has one in hand."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting: concurrent.futures.Future[R] | None = None
        for item in items:
            following = pool.submit(prepare, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
