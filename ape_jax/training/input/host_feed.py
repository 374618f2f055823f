"""Batches from the host: a function of (seed, step) alone, packed ahead of the training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from ape_jax.config import Config, tune
from ape_jax.data import image_loader, sampling
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.features import encode
from ape_jax.features.dataset import Dataset
from ape_jax.features.encode_pairs import make_augment
from ape_jax.features.ragged import bucket
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.towers.tower import Tower
from ape_jax.training import blocks
from ape_jax.training.blocks import Span
from ape_jax.training.input.prefetch import ahead
from ape_jax.training.input.sampler import Sampler

Batch = Mapping[str, np.ndarray]


class HostFeed:
    """Makes this process's share of each step's batch; `skipped` counts images put aside.

    Whatever was encoded before is looked up, in memory or in files: the rows of this process's
    share of a batch and no others. The rest is decoded, augmented and tokenised. Which records,
    which caption and which view come in a step is the same either way.

    Args:
      dataset: the pairs and their features.
      image: the image tower, for its preparation.
      text: the text tower, for its preparation.
      config: the run's.
      mesh: the devices.

    Raises:
      UserError: for a batch larger than the data.
    """

    def __init__(
        self,
        dataset: Dataset,
        image: Tower,
        text: Tower,
        config: Config,
        mesh: Mesh,
    ):
        self._dataset, self._image, self._config, self._mesh = dataset, image, config, mesh
        sampling.check_batch(len(dataset.pairs), config.train.batch)
        self._process = (jax.process_index(), jax.process_count())
        # Of packed captions: one for each device and micro-batch.
        groups = mesh.size * blocks.micro_batches(config.train)
        self._groups = groups // self._process[1]
        loss = config.loss
        self.sampler = Sampler(
            dataset, config.seed, config.train.batch, groups, loss.positives, loss.hard
        )
        pairs = dataset.pairs if isinstance(dataset.pairs, Pairs) else None
        self.skipped = image_loader.Skipped(pairs, Reading.of(config.data), "training")
        self._raw = dataset.pooled is None
        # What another image in the place of an unreadable one brings with it, one process alone
        # knows: where there are several, the packed size would not be agreed on.
        replaced = self._raw and config.data.on_error == "skip" and self._process[1] > 1
        # Blocks of a tower see captions one by one, and not end to end.
        resumed = tune.parse(config.text.tune).frontier == "hidden"
        self._packs = dataset.tokens is not None and not (replaced or resumed)
        self._length = 0 if self._packs else _padded_length(dataset, text)
        self._tokenize = partial(text.prepare, length=self._length)
        self.block_steps = self._block_steps()

    def batches(self, start_step: int, stop_step: int | None = None) -> Iterator[Batch]:
        """Batches from `start_step` on, without end or up to `stop_step` (exclusive).

        Yields:
          `index` i32 [b], the records; `text` i32 [b], their captions among the distinct
          texts; `pooled` [b, d] ([b, T, d] of hidden states) or `image` f32 [b, H, W, 3];
          `tokens` [g, S, d] with `lengths` i32 [g, b / g], or `mask` bool [b, T] with `tokens`
          [b, T, d] or `ids` i32 [b, T]. Where the text head wants them, `ids` [g, S] or [b, T] and
          `token_index` [g, b / g, T] come beside the tokens. Features come as they are stored. With
          P captions an image `text` is [b, P], and whatever has a caption a row has b * P of them,
          those of an image after each other. Where captions have languages, `language` i32 [g, b /
          g] or [b] has the rows of their means.
        """
        raw = self._raw_images(start_step) if self._raw else None
        steps = itertools.count(start_step) if stop_step is None else range(start_step, stop_step)
        try:
            for step in steps:
                yield self._batch(step, raw)
        finally:
            if raw is not None:
                raw.close()  # Its threads would go on decoding.

    def blocks(self, start: int, stop: int) -> Iterator[tuple[Span, Any]]:
        """Blocks on the mesh, packed by a thread while others train; close it to end the thread.

        Every array has a leading dimension of `block_steps` steps. What lies outside of a span is
        a copy of one of its batches.
        """
        return ahead(self._blocks(start, stop))

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[Span, Any]]:
        batches = self.batches(start, stop)
        try:
            window = blocks.window_steps(self._config.train.batch)
            for span in blocks.spans(start, stop, self.block_steps, window):
                taken = [next(batches) for _ in range(span.start, span.stop)]
                before, after = span.start, self.block_steps - span.stop
                taken = [taken[0]] * before + taken + [taken[-1]] * after
                stacked = {name: np.stack([batch[name] for batch in taken]) for name in taken[0]}
                yield span, mesh_lib.place_steps(stacked, self._mesh)
        finally:
            batches.close()

    def _block_steps(self) -> int:
        train, data = self._config.train, self._dataset
        if self._raw or data.tokens is None:
            return 1  # Images are large, and encoding makes steps long.
        share = train.batch // (self._groups * self._process[1])
        size = share * (data.pooled.nbytes // (data.pooled.shape[0] * data.pooled.shape[1]))
        tokens = self.sampler.usual_size if self._packs else share * self._length
        size += tokens * (data.tokens.flat.nbytes // len(data.tokens.flat))
        return blocks.block_steps(train, size)

    def _batch(self, step: int, raw: Any) -> dict[str, np.ndarray]:
        positions = sampling.positions(step, self._config.train.batch, *self._process)
        window, offset = self.sampler.at(step)
        mine = slice(self._process[0] * len(positions), (self._process[0] + 1) * len(positions))
        batch: dict[str, Any] = {}
        if raw is None:
            index, text = window.index[offset, mine], window.text[offset, mine]
            language = None if window.language is None else window.language[offset, mine]
            batch["pooled"] = self._dataset.pooled[index, window.view[offset, mine]]
        else:
            decoded = next(raw)
            index, batch["image"] = decoded["index"], decoded["image"]
            text, language = self.sampler.texts(index, positions)
        batch["text"] = np.asarray(text, np.int32)
        batch.update(self._captions(text.reshape(-1), window.size))
        if language is not None:
            shape = batch["lengths"].shape if "lengths" in batch else (-1,)
            batch["language"] = language.reshape(shape).astype(np.int32)
        batch["index"] = np.asarray(index, np.int32)
        return batch

    def _captions(self, rows: Int[np.ndarray, "b"], size: int) -> dict[str, Any]:
        tokens = self._dataset.tokens
        if tokens is None:
            return dict(self._tokenize([self._dataset.captions.texts[i] for i in rows]))
        if not self._packs:
            return tokens.padded_batch(rows, self._length)
        if self._raw:  # An image that replaces another has captions of its own.
            size = max(size, bucket(tokens.largest_group(rows, self._groups)))
        return tokens.batch(rows, self._groups, size)

    def _raw_images(self, start_step: int) -> Iterator[Mapping[str, np.ndarray]]:
        config = self._config
        return iter(
            image_loader.train_batches(
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
