"""What comes in each step: which records, which view, which caption, and how many tokens.

The draws of a position are written once, for tables of NumPy and of JAX.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Int

from ape_jax.data import order as order_lib
from ape_jax.features.dataset import Dataset
from ape_jax.features.ragged import bucket
from ape_jax.nn.tree import Tree
from ape_jax.training.plan import window_steps

Integers = Int[Any, "..."]

_CHUNK = 2**15  # Positions drawn at once: more would not stay in the processor's cache.


class Tables(Tree):
    """What draws depend on; arrays of NumPy (i64) or of JAX (i32).

    Attributes:
      view_key: of the stream of views.
      caption_key: of the stream of captions.
      further_keys: of the streams of a record's second, third, ... caption of a step.
      captions: [n + 1]; record i has the captions `rows[captions[i]:captions[i + 1]]`.
      rows: [m], the place of each caption among the distinct texts.
      tokens: [t + 1], where each text's tokens begin; None where captions are not encoded.
    """

    view_key: order_lib.Words
    caption_key: order_lib.Words
    further_keys: tuple[order_lib.Words, ...]
    captions: Integers
    rows: Integers
    tokens: Integers | None

    def view(self, position: order_lib.Words, views: int) -> Integers:
        """A view out of `views` for each position."""
        counts = np.full(position[0].shape, views, np.uint32)
        return order_lib.draw_words(self.view_key, position, counts).astype(self.rows.dtype)

    def caption(self, index: Integers, position: order_lib.Words) -> Integers:
        """Texts for each position, of those of the record that comes there.

        With several captions a step the result has one more dimension of that size. They differ
        where the record has enough; where it has fewer, all of them come, and what is missing is
        drawn from all.
        """
        first = self.captions[index]
        counts = (self.captions[index + 1] - first).astype(np.uint32)
        drawn = order_lib.draw_words(self.caption_key, position, counts)
        chosen = [drawn.astype(self.rows.dtype)]
        for key in self.further_keys:
            chosen.append(self._another(key, position, counts, chosen))
        texts = [self.rows[first + place] for place in chosen]
        return texts[0] if len(texts) == 1 else _stack(texts)

    def _another(
        self,
        key: order_lib.Words,
        position: order_lib.Words,
        counts: order_lib.Word,
        chosen: list[Integers],
    ) -> Integers:
        """A place that is not among those chosen, where there is one."""
        taken = np.uint32(len(chosen))
        enough = (counts > taken).astype(np.uint32)
        drawn = order_lib.draw_words(key, position, counts - taken * enough)
        drawn, enough = drawn.astype(self.rows.dtype), enough.astype(self.rows.dtype)
        place = drawn
        # The place with as many free ones before it: up from `drawn`, past each taken one.
        for _ in chosen:
            below = sum((other <= place).astype(self.rows.dtype) for other in chosen)
            place = drawn + below * enough
        return place

    def lengths(self, texts: Integers) -> Integers:
        """How many tokens each text has."""
        return self.tokens[texts + 1] - self.tokens[texts]


def _stack(arrays: list[Integers]) -> Integers:
    """Along a new last dimension, arrays of NumPy or of JAX."""
    return arrays[0].__array_namespace__().stack(arrays, axis=-1)


def host_tables(dataset: Dataset, seed: int, positives: int = 1) -> Tables:
    """The tables of a dataset, in NumPy, for so many captions a record and step."""
    return Tables(
        view_key=order_lib.stream_key(seed, "view"),
        caption_key=order_lib.stream_key(seed, "caption"),
        further_keys=tuple(
            order_lib.stream_key(seed, f"caption {p}") for p in range(2, positives + 1)
        ),
        captions=np.asarray(dataset.captions.offsets, np.int64),
        rows=np.asarray(dataset.captions.rows, np.int64),
        tokens=None if dataset.tokens is None else np.asarray(dataset.tokens.offsets, np.int64),
    )


@dataclasses.dataclass(frozen=True)
class Window:
    """The draws of a window's steps, of all processes.

    Attributes:
      index: i64 [steps, B], the record at each position.
      view: i64 [steps, B], its view.
      text: i64 [steps, B], its caption, or [steps, B, P] of several.
      size: the packed size of these steps; 0 where captions are not encoded.
    """

    index: Int[np.ndarray, "w B"]
    view: Int[np.ndarray, "w B"]
    text: Int[np.ndarray, "w B *P"]
    size: int


class Draws:
    """The draws of any step, on the host.

    Args:
      dataset: the pairs and their features.
      seed: of the run.
      batch: pairs a step, over all processes.
      groups: of a packed batch, over all processes.
      positives: captions a record and step.
    """

    def __init__(self, dataset: Dataset, seed: int, batch: int, groups: int, positives: int = 1):
        self.tables, self.batch, self.groups = host_tables(dataset, seed, positives), batch, groups
        self._order = order_lib.Order(len(dataset.pairs), seed)
        self._views = 1 if dataset.pooled is None else dataset.pooled.shape[1]
        self.floor = 0 if dataset.tokens is None else self._usual_tokens()
        self._window = functools.lru_cache(maxsize=1)(self._drawn)

    def at(self, step: int) -> tuple[Window, int]:
        """The window of a step and the step's place in it.

        A whole window is drawn at once: of many short arrays NumPy would mostly pay for the calls.
        """
        number, place = divmod(step, window_steps(self.batch))
        return self._window(number), place

    def texts(
        self, index: Int[np.ndarray, "b"], positions: Int[np.ndarray, "b"]
    ) -> Int[np.ndarray, "b *P"]:
        """The texts at each position, for records that others may have replaced."""
        return self.tables.caption(index, order_lib.words(positions))

    def _drawn(self, number: int) -> Window:
        steps = window_steps(self.batch)
        first, parts = number * steps * self.batch, []
        for start in range(first, first + steps * self.batch, _CHUNK):
            positions = np.arange(start, min(start + _CHUNK, first + steps * self.batch))
            index, position = self._order.lookup(positions), order_lib.words(positions)
            view = self.tables.view(position, self._views)
            parts.append((index, view, self.tables.caption(index, position)))
        index, view, text = (
            np.concatenate(part).reshape(steps, self.batch, *part[0].shape[1:])
            for part in zip(*parts)
        )
        size = 0
        if self.tables.tokens is not None:
            lengths = self.tables.lengths(text).reshape(steps * self.groups, -1)
            size = packed_size(int(lengths.sum(axis=1).max()), self.floor)
        return Window(index, view, text, size)

    def _usual_tokens(self) -> int:
        """About the most tokens that a group has in a window, from mean and spread of captions.

        The expected maximum of m normal variables is below sigma * sqrt(2 ln m).
        """
        counts = np.diff(self.tables.captions)
        # A record is drawn first and one of its captions then.
        weights = np.repeat(1 / (len(counts) * counts), counts)
        lengths = self.tables.lengths(self.tables.rows)
        mean = float(weights @ lengths)
        variance = max(float(weights @ lengths**2) - mean**2, 0.0)
        share = self.batch * (1 + len(self.tables.further_keys)) // self.groups
        groups = self.groups * window_steps(self.batch)
        return math.ceil(share * mean + math.sqrt(2 * math.log(groups) * share * variance))


def packed_size(largest: int, floor: int) -> int:
    """The size of a window whose largest group has `largest` tokens.

    What is usual is the least: without that, windows that are a little smaller than others would
    each want a program of their own.
    """
    return bucket(max(largest, floor))
