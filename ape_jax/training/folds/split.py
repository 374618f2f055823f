"""Folds of encoded pairs: what is trained on, and what is held out, share no image or caption."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from ape_jax.align.closed_form.paired import Paired
from ape_jax.align.layers.retrieval import concept_splits
from ape_jax.config import Config
from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.table.texts import Captions
from ape_jax.data.vectors import VectorTable
from ape_jax.errors import UserError
from ape_jax.features.dataset import Dataset
from ape_jax.training.layers.question import domains_of

LEAST = 20
"""Images of a fold: R@10 among fewer says little."""
_LIMIT = 4096  # Images of a fold that are retrieved among.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fold:
    """Images to train on and images to evaluate on.

    Attributes:
      train: their indices, ascending.
      held_out: likewise; of a large fold a sample.
      crosses: whether what is held out is of a domain that is not trained on (`data.domain`).
      words: the captions without those that augmentation has added.
    """

    train: Int[np.ndarray, " t"]
    held_out: Int[np.ndarray, " h"]
    crosses: bool
    words: Captions

    def __call__(self, dataset: Dataset) -> tuple[Dataset, Dataset]:
        """The pairs to train on and those to evaluate on, with the captions as they were given."""
        plain = dataclasses.replace(dataset, captions=self.words)
        return dataset.take(self.train), plain.take(self.held_out)


def split(config: Config, dataset: Dataset, source: Pairs) -> list[Fold]:
    """Splits encoded pairs by concept: images that share a caption are in one fold.

    So are images of the same content. With `data.domain` there are folds beside them whose held-out
    part is of another file, as where layers are chosen (`align.layers.concept_splits`).

    Args:
      config: the resolved config.
      dataset: the pairs that are trained on.
      source: the pairs as they were opened.

    Raises:
      UserError: for pairs too few for so many folds.
    """
    pairs, captions = _given(config, dataset, source)
    same = _same_images(pairs)
    numbers, first = np.unique(same, return_index=True)
    paired = Paired(
        text=np.zeros((len(captions.texts), 1)),
        image=np.zeros((len(numbers), 1, 1)),
        text_index=captions.text_index,
        image_index=same[captions.image_index],
    )
    domain = domains_of(config, pairs)
    concepts, count = len(np.unique(paired.groups())), config.train.folds
    if concepts < count:
        raise _too_few(config, f"there are {concepts:,} images that share no caption", concepts)
    domain = None if domain is None else domain[first]
    splits = concept_splits(paired, domain, count=count, seed=config.seed)
    folds, images = [], len(same)
    for one in splits:
        train, held_out = np.flatnonzero(one.fit[same]), np.flatnonzero(one.score[same])
        few = min(len(train), len(held_out))
        if few < LEAST:
            part = "hold out" if len(held_out) == few else "train on"
            found = f"{count} folds of {images:,} images leave {few} to {part}"
            raise _too_few(config, found, images // LEAST)
        if len(held_out) > _LIMIT:
            rng = np.random.default_rng([config.seed, len(held_out)])
            held_out = np.sort(rng.choice(held_out, _LIMIT, replace=False))
        crosses = one.crosses
        folds.append(Fold(train=train, held_out=held_out, crosses=crosses, words=captions))
    return folds


def _too_few(config: Config, found: str, most: int) -> UserError:
    fewer = f"fewer folds (at most {most}) or " if 2 <= most < config.train.folds else ""
    return UserError(
        f"config.train.folds: {found}, and a fold needs at least {LEAST} images that share no "
        f"caption with the others; write {fewer}0"
    )


def _given(config: Config, dataset: Dataset, source: Pairs) -> tuple[Sequence[Pair], Captions]:
    """The pairs, and their captions, without what `augment.words` has added behind the captions."""
    captions = dataset.captions
    if not config.augment.words:
        return dataset.pairs, dataclasses.replace(captions, negatives=None)
    rows = {name: row for row, name in enumerate(source.ids())}
    given = source.take([rows[pair.id] for pair in dataset.pairs])
    counts = np.array([len(dict.fromkeys(pair.captions)) for pair in given])
    place = np.arange(len(captions.text_index)) - captions.offsets[captions.image_index]
    kept = place < counts[captions.image_index]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return given, Captions(captions.texts, captions.text_index[kept], offsets)


def _same_images(pairs: Sequence[Pair]) -> Int[np.ndarray, " n"]:
    """Numbers the images, those of equal content alike; vectors are all different."""
    if not isinstance(pairs, Pairs) or isinstance(pairs.table, VectorTable):
        return np.arange(len(pairs))
    number: dict[bytes, int] = {}
    return np.array([number.setdefault(found, len(number)) for found in pairs.image_hashes])
