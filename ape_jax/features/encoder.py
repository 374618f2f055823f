"""The contract of feature encoders: frozen towers at work, which fill the cache.

Two of them are there: `encode.FrozenTower`, which JAX runs, and `outside.OutsideTower`, whose model
another library runs (transformers, timm, sentence-transformers).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Int32

from ape_jax.parallel import hosts
from ape_jax.towers.tower import Tower

ImageRows: TypeAlias = tuple[Int[np.ndarray, "k"], Int[np.ndarray, "k"], Float[np.ndarray, "k ..."]]
"""Records, views and features of k images."""

TextRows: TypeAlias = tuple[Int[np.ndarray, "k"], list[Float[np.ndarray, "_ _"]]]
"""Indices of k texts, and the encodings [t, d] of each."""


@runtime_checkable
class FeatureEncoder(Protocol):
    """A frozen tower at work: what is read from it, and how many rows at a time."""

    @property
    def tower(self) -> Tower:
        """The tower."""
        ...

    @property
    def layer(self) -> int:
        """Which hidden state is read."""
        ...

    @property
    def pooling(self) -> str:
        """How images are pooled; captions keep their tokens, unless their library pools them."""
        ...

    @property
    def rows(self) -> int:
        """Rows a batch."""
        ...

    def image_shape(self) -> tuple[int, ...]:
        """Shape of an image's features, [d], or [T, d] where nothing is pooled."""
        ...

    def token_width(self) -> int:
        """Width of a token's encoding."""
        ...

    def stream_images(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[ImageRows]:
        """Features of images, batch by batch, in the order in which they come.

        The next batches are at work while the reader has one in hand.

        Args:
          batches: of `data.image_loader.image_batches`, with `rows` rows each.

        Yields:
          Records, views and features f32 of the valid rows.
        """
        ...

    def stream_texts(self, texts: Sequence[str], what: str = "captions") -> Iterator[TextRows]:
        """Encodings of texts, batch by batch, in an order that the encoder chooses.

        Args:
          texts: n captions.
          what: for the line that says how far it is.

        Yields:
          Indices in `texts`, and their encodings f32 [t, d].
        """
        ...

    def token_counts(self, texts: Sequence[str], what: str) -> Int[np.ndarray, "n"]:
        """Tokens of each text that are encoded (`features.cut` says how many texts are cut).

        Args:
          texts: n captions.
          what: for the progress line.
        """
        ...

    def ids_of(self, texts: Sequence[str], lengths: Int[np.ndarray, "n"]) -> Int32[np.ndarray, "S"]:
        """The ids of all texts end to end, special ones included: of the tokens that were encoded.

        Args:
          texts: n captions.
          lengths: how many tokens each of them has; CLIP's end where the tower's own mask does.
        """
        ...


def report_cut(what: str, cut: int, count: int, longest: int) -> None:
    """Says how many texts are longer than the tower takes.

    Args:
      what: what the texts are.
      cut: how many are cut.
      count: of how many.
      longest: to how many tokens.
    """
    if cut:
        hosts.say(f"{what}: {cut} of {count} are cut to {longest} tokens")
