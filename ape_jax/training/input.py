"""The batch of any step, as a function of (seed, step) alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import ml_collections
import numpy as np
from jaxtyping import Int

from ape_jax.data import order as order_lib
from ape_jax.data import pipeline
from ape_jax.features import encode
from ape_jax.towers.tower import Tower
from ape_jax.training.dataset import Dataset, make_augment


class TrainInput:
    """Makes this process's share of each step's batch; `skipped` counts images put aside.

    Whatever was encoded before is looked up; the rest is decoded, augmented and tokenised. Which
    records, which caption and which view come in a step is the same either way.

    Args:
      dataset: the pairs and their features.
      image: the image tower, for its preparation.
      text: the text tower, for its preparation.
      config: the run's.

    Raises:
      UserError: for a batch larger than the data.
    """

    def __init__(
        self, dataset: Dataset, image: Tower, text: Tower, config: ml_collections.ConfigDict
    ):
        self._dataset, self._image, self._config = dataset, image, config
        order_lib.check_batch(len(dataset.pairs), config.train.batch)
        self._order = order_lib.Order(len(dataset.pairs), config.seed)
        self.skipped = pipeline.Skipped()
        self._process = (jax.process_index(), jax.process_count())
        self._length = _padded_length(dataset, text)
        self._tokenize = partial(text.prepare, length=self._length)

    def batches(self, start_step: int) -> Iterator[Mapping[str, np.ndarray]]:
        """Batches from `start_step` on, without end.

        Yields:
          `index` i32 [b], the records; `pooled` f32 [b, d] or `image` f32 [b, H, W, 3]; `mask`
          bool [b, T] with `tokens` f32 [b, T, d] or `ids` i32 [b, T].
        """
        raw = self._raw_images(start_step) if self._dataset.pooled is None else None
        try:
            for step in itertools.count(start_step):
                yield self._batch(step, raw)
        finally:
            if raw is not None:
                raw.close()  # Its threads would go on decoding.

    def _batch(self, step: int, raw: Any) -> dict[str, np.ndarray]:
        positions = order_lib.positions(step, self._config.train.batch, *self._process)
        batch: dict[str, Any] = {}
        if raw is None:
            index = self._order.indices(step, self._config.train.batch, *self._process)
            batch["pooled"] = self._views(index, positions)
        else:
            decoded = next(raw)
            index, batch["image"] = decoded["index"], decoded["image"]
        batch.update(self._texts(index, positions))
        batch["index"] = np.asarray(index, np.int32)
        return batch

    def _views(self, index: Int[np.ndarray, "b"], positions: Int[np.ndarray, "b"]) -> Any:
        views = np.full(len(index), self._dataset.pooled.shape[1])
        return self._dataset.pooled[
            index, order_lib.draw(self._config.seed, "view", positions, views)
        ]

    def _texts(self, index: Int[np.ndarray, "b"], positions: Int[np.ndarray, "b"]) -> Any:
        captions = self._dataset.captions
        drawn = order_lib.draw(self._config.seed, "caption", positions, captions.counts[index])
        rows = captions.rows[captions.offsets[index] + drawn]
        if self._dataset.tokens is None:
            return self._tokenize([captions.texts[i] for i in rows])
        tokens, mask = self._dataset.tokens.padded(rows, self._length)
        return {"tokens": tokens, "mask": mask}

    def _raw_images(self, start_step: int) -> Iterator[Mapping[str, np.ndarray]]:
        config = self._config
        return iter(
            pipeline.train_batches(
                self._dataset.pairs,
                transform=self._image.prepare.transform,
                augment=make_augment(config),
                batch=config.train.batch,
                seed=config.seed,
                start_step=start_step,
                process_index=self._process[0],
                process_count=self._process[1],
                workers=config.data.workers,
                on_error=config.data.on_error,
                background=config.data.background,
                skipped=self.skipped,
            )
        )


def _padded_length(dataset: Dataset, text: Tower) -> int:
    """One padded length for the whole run, so that the step is compiled once."""
    if dataset.tokens is not None:  # Short captions: every token of padding is felt.
        return -(-dataset.tokens.longest // 4) * 4
    longest = encode.measure(text, dataset.captions.texts, "captions").max()
    return min(-(-int(longest) // 8) * 8, text.prepare.max_length)
