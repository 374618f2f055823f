"""What comes in each step: which records, which view, which caption, and how many tokens.

The draws of a position are written once, for tables of NumPy and of JAX.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import flax.struct
import numpy as np
from jaxtyping import Int

from ape_jax.data import order as order_lib
from ape_jax.features.ragged import bucket
from ape_jax.training.dataset import Dataset
from ape_jax.training.plan import window_steps

Integers = Int[Any, "..."]

_CHUNK = 2**15  # Positions drawn at once: more would not stay in the processor's cache.


@flax.struct.dataclass
class Tables:
    """What draws depend on; arrays of NumPy (i64) or of JAX (i32).

    Attributes:
      view_key: of the stream of views.
      caption_key: of the stream of captions.
      captions: [n + 1]; record i has the captions `rows[captions[i]:captions[i + 1]]`.
      rows: [m], the place of each caption among the distinct texts.
      tokens: [t + 1], where each text's tokens begin; None where captions are not encoded.
    """

    view_key: order_lib.Words
    caption_key: order_lib.Words
    captions: Integers
    rows: Integers
    tokens: Integers | None

    def view(self, position: order_lib.Words, views: int) -> Integers:
        """A view out of `views` for each position."""
        counts = np.full(position[0].shape, views, np.uint32)
        return order_lib.draw_words(self.view_key, position, counts).astype(self.rows.dtype)

    def caption(self, index: Integers, position: order_lib.Words) -> Integers:
        """A text for each position, one of those of the record that comes there."""
        first = self.captions[index]
        counts = (self.captions[index + 1] - first).astype(np.uint32)
        drawn = order_lib.draw_words(self.caption_key, position, counts)
        return self.rows[first + drawn.astype(self.rows.dtype)]

    def lengths(self, texts: Integers) -> Integers:
        """How many tokens each text has."""
        return self.tokens[texts + 1] - self.tokens[texts]


def host_tables(dataset: Dataset, seed: int) -> Tables:
    """The tables of a dataset, in NumPy."""
    return Tables(
        view_key=order_lib.stream_key(seed, "view"),
        caption_key=order_lib.stream_key(seed, "caption"),
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
      text: i64 [steps, B], its caption.
      size: the packed size of these steps; 0 where captions are not encoded.
    """

    index: Int[np.ndarray, "w B"]
    view: Int[np.ndarray, "w B"]
    text: Int[np.ndarray, "w B"]
    size: int


class Draws:
    """The draws of any step, on the host.

    Args:
      dataset: the pairs and their features.
      seed: of the run.
      batch: pairs a step, over all processes.
      groups: of a packed batch, over all processes.
    """

    def __init__(self, dataset: Dataset, seed: int, batch: int, groups: int):
        self.tables, self.batch, self.groups = host_tables(dataset, seed), batch, groups
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
    ) -> Int[np.ndarray, "b"]:
        """The text at each position, for records that others may have replaced."""
        return self.tables.caption(index, order_lib.words(positions))

    def _drawn(self, number: int) -> Window:
        steps = window_steps(self.batch)
        first, parts = number * steps * self.batch, []
        for start in range(first, first + steps * self.batch, _CHUNK):
            positions = np.arange(start, min(start + _CHUNK, first + steps * self.batch))
            index, position = self._order.lookup(positions), order_lib.words(positions)
            view = self.tables.view(position, self._views)
            parts.append((index, view, self.tables.caption(index, position)))
        index, view, text = (np.concatenate(part).reshape(steps, -1) for part in zip(*parts))
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
        share, groups = self.batch // self.groups, self.groups * window_steps(self.batch)
        return math.ceil(share * mean + math.sqrt(2 * math.log(groups) * share * variance))


def packed_size(largest: int, floor: int) -> int:
    """The size of a window whose largest group has `largest` tokens.

    What is usual is the least: without that, windows that are a little smaller than others would
    each want a program of their own.
    """
    return bucket(max(largest, floor))
