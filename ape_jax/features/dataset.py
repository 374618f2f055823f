"""Pairs at the frontier: a table of captions, and the features of the frozen parts of towers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int

from ape_jax.data import pairs as pairs_lib
from ape_jax.data.languages import spoken
from ape_jax.data.options import BY_SCRIPT
from ape_jax.data.table.texts import Captions, Negatives, Spoken, Texts
from ape_jax.errors import UserError
from ape_jax.features.ragged import RaggedTokens
from ape_jax.storage.rows import access
from ape_jax.storage.rows.access import Rows

T = TypeVar("T")


def captions_of(
    pairs: Sequence[pairs_lib.Pair], *, negatives: bool = False, language: str = ""
) -> Captions:
    """The caption table of a pairs source.

    Args:
      pairs: the records.
      negatives: whether the negative captions are among the texts, too.
      language: `data.language`: how the languages of captions are told, '' for not at all.
    """
    if isinstance(pairs, pairs_lib.Pairs):
        found = pairs.caption_table(negatives=True) if negatives else pairs.caption_table()
        if language == BY_SCRIPT:
            return spoken.by_script(found)
        return spoken.by_column(found, pairs.table, pairs.rows) if language else found
    place: dict[str, int] = {}
    rows: list[int] = []
    offsets = [0]
    for pair in pairs:
        rows += [place.setdefault(text, len(place)) for text in pair.captions]
        offsets.append(len(rows))
    return Captions(tuple(place), np.asarray(rows), np.asarray(offsets))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A pairs source with what was encoded of it.

    Attributes:
      pairs: the records that are used.
      captions: their captions.
      pooled: bf16 or f32 [n, V, d] image features of V views, or [n, V, T, d] hidden states where
        the tower's upper blocks are trained, in memory or in files; None where images are encoded
        in the step.
      tokens: encodings of `captions.texts`, or their hidden states; None where captions are encoded
        in the step.
      language_rows: i64 [m], the row of each caption in the model's table of language means
        (`align.languages`), None where there are none.
    """

    pairs: Sequence[pairs_lib.Pair]
    captions: Captions
    pooled: Float[Rows, "n V ..."] | None
    tokens: RaggedTokens | None
    language_rows: Int[np.ndarray, "m"] | None = None

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of the features that are read from files."""
        flat = None if self.tokens is None else self.tokens.flat
        return sum(rows.nbytes for rows in (self.pooled, flat) if access.is_on_disk(rows))

    def in_memory(self) -> Dataset:
        """The same data set, whose features are arrays in memory."""
        pooled = None if self.pooled is None else access.in_memory(self.pooled)
        tokens = self.tokens
        if tokens is not None:
            tokens = dataclasses.replace(tokens, flat=access.in_memory(tokens.flat))
        return dataclasses.replace(self, pooled=pooled, tokens=tokens)

    def sample(self, count: int, seed: int) -> Dataset:
        """A random sample of `count` records, in their original order.

        Raises:
          UserError: where there are fewer.
        """
        if count > len(self.pairs):
            raise UserError(
                f"config.data.sample: there are {len(self.pairs)} training pairs, found {count}"
            )
        # The first ones of one random order: a smaller sample is a part of a larger one.
        order = np.random.default_rng([seed, len(self.pairs)]).permutation(len(self.pairs))
        return self.take(np.sort(order[:count]))

    def take(self, chosen: Int[np.ndarray, " k"]) -> Dataset:
        """Some of the records, by index, in that order, with what was encoded of them."""
        if isinstance(self.pairs, pairs_lib.Pairs):
            pairs = self.pairs.take(chosen)
        else:
            pairs = [self.pairs[int(i)] for i in chosen]
        places, offsets = _places_of(self.captions, chosen)
        index, languages = self.captions.text_index[places], self.captions.spoken
        negatives, others = self.captions.negatives, np.zeros(0, np.int64)
        if negatives is not None:
            at, ends = _places_of(negatives, chosen)
            others = negatives.text_index[at]
        kept, rows = np.unique(np.concatenate([index, others]), return_inverse=True)
        texts = self.captions.texts
        few = texts.take(kept) if isinstance(texts, Texts) else tuple(texts[i] for i in kept)
        if negatives is not None:
            negatives = Negatives(rows[len(index) :], ends)
        if languages is not None:
            languages = Spoken(languages.names, languages.index[places])
        captions = Captions(few, rows[: len(index)], offsets, negatives, languages)
        pooled = None if self.pooled is None else access.choose(self.pooled, chosen)
        tokens = None if self.tokens is None else self.tokens.rows(kept)
        language = None if self.language_rows is None else self.language_rows[places]
        return Dataset(pairs, captions, pooled, tokens, language)


def _places_of(owned: Captions | Negatives, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places in `text_index` of the texts of some records, and where those of each begin."""
    counts = np.diff(owned.offsets)[records]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    moved = np.repeat(owned.offsets[records] - offsets[:-1], counts)
    return moved + np.arange(len(moved)), offsets


class FeatureStore:
    """Keeps features in memory, so that several runs in a process encode or read them once.

    The key must name everything the features depend on: a `Fingerprint`'s digest does.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Returns the features of a key, made on first use."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]
