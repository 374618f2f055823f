"""Makes a run ready for the side loss on subwords: the captions' bags, and the linear layer."""

from __future__ import annotations

import dataclasses

import numpy as np

from ape_jax.align import subwords
from ape_jax.align.subwords import SUBWORDS
from ape_jax.features.dataset import Dataset
from ape_jax.parallel import hosts
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs.aligned import AlignedModel


def with_layer(aligned: AlignedModel, dataset: Dataset) -> AlignedModel:
    """Adds the layer to `trainable`, the bags of captions to `frozen` and the vocabulary to `meta`.

    Args:
      aligned: the model with its initial heads.
      dataset: the pairs that are trained on.
    """
    config, model, captions = aligned.config, aligned.model, dataset.captions
    counts = np.bincount(captions.text_index, minlength=len(captions.texts))
    bags = subwords.bags_of(captions.texts, counts, model.text.tower.prepare)
    pooled = model.image.tower.config.pooled_width(model.image.pooling)
    width = (aligned.solved or {}).get("width") or config.embed or pooled
    how = config.mesh.shard_min_size, config.mesh.rules
    layer = {SUBWORDS: subwords.layer(width, len(bags.idf))}
    fixed = {SUBWORDS: {"classes": bags.classes, "idf": bags.idf}}
    hosts.say(f"subwords: {len(bags.idf):,} different ones in {counts.sum():,} captions")
    return dataclasses.replace(
        aligned,
        trainable={**aligned.trainable, **mesh_lib.place_trained(layer, aligned.mesh, *how)},
        frozen={**aligned.frozen, **mesh_lib.place_replicated(fixed, aligned.mesh)},
        meta={
            **aligned.meta,
            SUBWORDS: {"classes": len(bags.idf), "digest": bags.digest},
        },
    )
