"""Free pairs of a run: opened, checked, and brought to the place of its images."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Float32, Int64

from ape_jax.align import free_pairs
from ape_jax.align.closed_form import Free
from ape_jax.config import Config
from ape_jax.config.poolings import OWN
from ape_jax.data.classes.free_pairs import FreePairs, open_free_pairs
from ape_jax.errors import UserError
from ape_jax.features import frontier
from ape_jax.features.dataset import Dataset, FeatureStore
from ape_jax.features.frontier import Readers, Sources
from ape_jax.features.ragged import RaggedTokens
from ape_jax.runs.aligned import STATISTICS, AlignedModel
from ape_jax.training.captions.pooled import PooledRows
from ape_jax.training.statistics import moments


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FreeFeatures:
    """Free pairs as a run trains on them.

    Attributes:
      rows: f32 [c, d], in the place of image features before they are standardised.
      names: tokens of the distinct names.
      row_index: the row of each free pair, i64 [q], ascending.
      name_index: the name of each, i64 [q].
    """

    rows: Float32[np.ndarray, "c d"]
    names: RaggedTokens
    row_index: Int64[np.ndarray, " q"]
    name_index: Int64[np.ndarray, " q"]

    def pooled(self, pooling: str) -> Free:
        """As closed forms take them.

        Args:
          pooling: how the tokens of a name become one vector.
        """
        text = PooledRows(self.names, pooling)
        index = {"text_index": self.name_index, "image_index": self.row_index}
        return Free(text=text, image=self.rows, **index)


def open_source(config: Config) -> FreePairs | None:
    """The free pairs that a config asks for, None for none.

    Raises:
      UserError: for a tower without a classifier, names that do not fit it, a pooling that its rows
        do not read, or fewer classes than a step takes.
    """
    if not config.classifier.weight:
        return None
    found = open_free_pairs(config.image.tower, config.classifier.names)
    asked = found.own_pooling if config.image.pooling == OWN else config.image.pooling
    if asked != found.pooling:
        raise UserError(
            f"config.image.pooling: the rows of the classifier of {config.image.tower} read "
            f"{found.pooling!r}, found {config.image.pooling!r}, which is {asked!r} here; write "
            f"{found.pooling!r}, or classifier.weight=0"
        )
    if config.trains and len(found) < config.classifier.batch:
        raise UserError(
            f"config.classifier.batch: {config.classifier.batch} is more than the {len(found):,} "
            "classes that have a name; write at most that"
        )
    return found


def prepared(
    config: Config,
    sources: Sources,
    readers: Readers,
    store: FeatureStore,
    dataset: Dataset,
    aligned: AlignedModel,
) -> FreeFeatures | None:
    """The free pairs in the place of the training images, None without.

    Args:
      config: the resolved config.
      sources: with the free pairs.
      readers: of the towers, which encode the names.
      store: features that this process has already.
      dataset: the training pairs.
      aligned: the model, which has the images' statistics where it standardises them.

    Raises:
      UserError: where all rows are the same.
    """
    part = frontier.free_part(sources, readers)
    if part is None:
        return None
    if aligned.model.standardize:
        fixed = aligned.frozen[STATISTICS]
        mean, std = np.asarray(fixed["center"]), np.asarray(fixed["spread"])
    else:
        mean, std = moments(dataset.pooled)
    return features(part.pairs, part.load(config, store), mean, std)


def features(
    pairs: FreePairs,
    names: RaggedTokens,
    mean: Float[np.ndarray, " d"],
    std: Float[np.ndarray, " d"],
) -> FreeFeatures:
    """Free pairs in the place of the images of a run.

    Args:
      pairs: the free pairs.
      names: the tokens of their names.
      mean: of the image features that are trained on.
      std: their standard deviation.

    Raises:
      UserError: where all rows are the same.
    """
    return FreeFeatures(
        rows=free_pairs.placed(pairs.rows, pairs.mean, pairs.variance, mean, std),
        names=names,
        row_index=pairs.row_index,
        name_index=pairs.name_index,
    )
