"""Negative captions beside the captions: one list of texts for both, which are encoded alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from ape_jax.data.table.stored import Table
from ape_jax.data.table.texts import Captions, Negatives, Texts
from ape_jax.parallel import hosts


def with_negatives(captions: Captions, table: Table, rows: Int[np.ndarray, " n"]) -> Captions:
    """Adds the negative captions of pairs to the list of their captions.

    A negative that is word for word a caption of its own image is none; how many there are is said.

    Args:
      captions: those of the rows.
      table: the pairs.
      rows: the rows of the table that are used.
    """
    place = {text: i for i, text in enumerate(captions.texts)}
    first_new = len(place)
    index, counts = [], []
    for lists in table.column("negatives", rows):
        counts.append([len(texts or ()) for texts in lists.to_pylist()])
        index += [place.setdefault(text, len(place)) for text in lists.flatten().to_pylist()]
    found = np.array(index, np.int64)
    owner = np.repeat(np.arange(len(rows)), np.concatenate(counts).astype(np.int64))
    own = captions.image_index * len(place) + captions.text_index
    kept = ~np.isin(owner * len(place) + found, own)
    if not kept.all():
        hosts.say(
            f"{(~kept).sum():,} of {len(kept):,} negative captions are captions of their own "
            "images, and are left out"
        )
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner[kept], minlength=len(rows)))])
    return dataclasses.replace(
        captions,
        texts=_joined(captions.texts, list(place)[first_new:]),
        negatives=Negatives(found[kept], offsets.astype(np.int64)),
    )


def _joined(texts: Sequence[str], more: list[str]) -> Sequence[str]:
    if not isinstance(texts, Texts):
        return (*texts, *more)
    import pyarrow as pa

    return Texts([*texts.arrays, pa.array(more, pa.string())])
