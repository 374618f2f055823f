"""What comes in each step: which records, which view, which captions, and the packed size."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Int

from ape_jax.data import sampling
from ape_jax.data.languages import spoken
from ape_jax.data.table.texts import Captions, Negatives
from ape_jax.features.dataset import Dataset
from ape_jax.features.ragged import bucket
from ape_jax.training.blocks import window_steps
from ape_jax.training.input.choosing import InLanguages, several

_CHUNK = 2**14  # Positions sampled at once: more would not stay in the processor's cache.
_RECORDS = 2**20  # Whose captions are measured at once.


@dataclasses.dataclass(frozen=True)
class Window:
    """The samples of a window's steps, of all processes.

    Attributes:
      index: i64 [W, B], the record at each position.
      view: i64 [W, B], its view.
      text: i64 [W, B], its caption among the distinct texts, or [W, B, P] of several; behind these
        its negative captions, where they are used.
      language: the row of each caption in the model's table of language means, None where captions
        have no language.
      size: the packed size of these steps; 0 where captions are not encoded.
    """

    index: Int[np.ndarray, "W B"]
    view: Int[np.ndarray, "W B"]
    text: Int[np.ndarray, "W B *P"]
    language: Int[np.ndarray, "W B *P"] | None
    size: int


class Sampler:
    """Samples any step, as a function of (seed, step).

    Args:
      dataset: the pairs and their features.
      seed: seed of the run.
      batch: pairs a step, over all processes.
      groups: groups of packed captions in a batch, over all processes.
      positives: captions a record and step.
      hard: negative captions a record and step.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        batch: int,
        groups: int,
        positives: int = 1,
        hard: int = 0,
    ):
        self.batch, self.groups = batch, groups
        self._seed, self._positives, self._hard = seed, positives, hard
        self._captions, self._rows = dataset.captions, dataset.language_rows
        self._spoken = None if self._rows is None else InLanguages(dataset.captions)
        self._lengths = None if dataset.tokens is None else dataset.tokens.lengths
        self._order = sampling.order_of(dataset.pairs, seed)
        self._views = 1 if dataset.pooled is None else dataset.pooled.shape[1]
        # Without a usual size, windows that are a little smaller than others would each want a
        # program of their own.
        self.usual_size = 0 if self._lengths is None else bucket(self._usual_tokens())
        self._window = functools.lru_cache(maxsize=1)(self._sample_window)

    def at(self, step: int) -> tuple[Window, int]:
        """The window of a step, and the step's number in it.

        A whole window is sampled at once: for many short arrays NumPy would mostly pay for the
        calls.
        """
        number, offset = divmod(step, window_steps(self.batch))
        return self._window(number), offset

    def texts(
        self, index: Int[np.ndarray, "b"], positions: Int[np.ndarray, "b"]
    ) -> tuple[Int[np.ndarray, "b *P"], Int[np.ndarray, "b *P"] | None]:
        """Samples the captions at each position, of the records that come there.

        Returns:
          The captions among the distinct texts, and the row of the mean of each one's language.
        """
        if self._spoken is not None and self._rows is not None:
            uses = self._spoken.sample(index, positions, self._seed, self._positives)
            uses = uses[:, 0] if self._positives == 1 else uses
            return self._captions.text_index[uses], self._rows[uses]
        return self._texts(index, positions), None

    def _texts(
        self, index: Int[np.ndarray, "b"], positions: Int[np.ndarray, "b"]
    ) -> Int[np.ndarray, "b *P"]:
        texts = sample_captions(self._captions, index, positions, self._seed, self._positives)
        if not self._hard:
            return texts
        texts = texts.reshape(len(index), -1)
        args = self._captions.negatives, index, positions, self._seed, self._hard
        return np.concatenate([texts, sample_negatives(*args, texts[:, 0])], axis=1)

    def _sample_window(self, number: int) -> Window:
        steps = window_steps(self.batch)
        count = steps * self.batch
        positions = number * count + np.arange(count)
        pieces = [self._sample(positions[i : i + _CHUNK]) for i in range(0, count, _CHUNK)]
        index, view, text, language = (
            None
            if piece[0] is None
            else np.concatenate(piece).reshape(steps, self.batch, *piece[0].shape[1:])
            for piece in zip(*pieces)
        )
        size = 0
        if self._lengths is not None:
            tokens = self._lengths[text].reshape(steps * self.groups, -1).sum(axis=1)
            size = max(bucket(tokens.max()), self.usual_size)
        return Window(index, view, text, language, size)

    def _sample(self, positions: Int[np.ndarray, "b"]) -> tuple[Any, ...]:
        index = self._order.lookup(positions)
        views = np.full(len(positions), self._views)
        view = sampling.uniform(self._seed, "view", positions, views)
        return index, view, *self.texts(index, positions)

    def _usual_tokens(self) -> int:
        """About the most tokens that a group has in a window, from mean and variance of captions.

        The expected maximum of m normal variables is below sigma * sqrt(2 ln m).
        """
        captions, mean, square = self._captions, 0.0, 0.0
        count = len(captions.counts)
        shares = spoken.balanced(captions) if self._spoken else None
        for start in range(0, count, _RECORDS):
            stop = min(start + _RECORDS, count)
            counts = captions.counts[start:stop]
            # A record is sampled first and one of its captions then.
            weights = np.repeat(1 / (count * counts), counts)
            some = slice(captions.offsets[start], captions.offsets[stop])
            if shares is not None:  # And one of its languages before that.
                weights = shares[some] / count
            texts = captions.text_index[some]
            lengths = self._lengths[texts]
            mean += float(weights @ lengths)
            square += float(weights @ lengths**2)
        variance = max(square - mean**2, 0.0)
        share = self.batch * (self._positives + self._hard) // self.groups
        groups = self.groups * window_steps(self.batch)
        return math.ceil(share * mean + math.sqrt(2 * math.log(groups) * share * variance))


def sample_captions(
    captions: Captions,
    index: Int[np.ndarray, "b"],
    positions: Int[np.ndarray, "b"],
    seed: int,
    positives: int = 1,
) -> Int[np.ndarray, "b *P"]:
    """Samples `positives` captions of a record for each position.

    They differ where the record has enough; where it has fewer, all of them come, and what is
    missing is sampled from all.

    Args:
      captions: the captions of all records.
      index: i64 [b], the record at each position.
      positions: i64 [b].
      seed: seed of the run.
      positives: P.

    Returns:
      Indices of the distinct texts, i64 [b], or [b, P] of several.
    """
    first, counts = captions.offsets[index], captions.counts[index]
    chosen = several(counts, positions, seed, "caption", positives)
    texts = [captions.text_index[first + caption] for caption in chosen]
    return texts[0] if positives == 1 else np.stack(texts, axis=-1)


def sample_negatives(
    negatives: Negatives,
    index: Int[np.ndarray, "b"],
    positions: Int[np.ndarray, "b"],
    seed: int,
    hard: int,
    captions: Int[np.ndarray, "b"],
) -> Int[np.ndarray, "b h"]:
    """Samples negative captions of a record for each position, different ones.

    Args:
      negatives: those of all records.
      index: i64 [b], the record at each position.
      positions: i64 [b].
      seed: seed of the run.
      hard: H.
      captions: i64 [b], a caption of each record: it stands where the record has fewer than H,
        and the loss knows by it that there is none.

    Returns:
      Indices of the distinct texts, i64 [b, H].
    """
    first, counts = negatives.offsets[index], np.diff(negatives.offsets)[index]
    chosen = several(np.maximum(counts, 1), positions, seed, "negative", hard)
    last, texts = max(len(negatives.text_index) - 1, 0), []
    for taken, one in enumerate(chosen):
        found = negatives.text_index[np.minimum(first + one, last)]
        texts.append(np.where(taken < counts, found, captions))
    return np.stack(texts, axis=-1)
