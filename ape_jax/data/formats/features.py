"""Precomputed features: pairs whose images, texts or both are vectors.

Any modality will do (audio, video, molecules): a head is trained on the vectors, and their side
needs no tower. After `features:` stands one of

    IMAGE.npy,TEXT.npy   two arrays, row i of one belonging to row i of the other
    FOLDER               shards: image-*.npy, text-*.npy, if wanted text_offsets-* and owner-*
    FILE.npz             `image`, `text` and, if wanted, `text_offsets` and `owner`
    FILE.parquet         columns `image`, `text` (or `caption`, words for a text tower), and `id`

`image` is [n, d] or, for several views of each, [n, V, d]. `text` is [m, d], one vector a caption,
or token encodings: [m, T, d], flat [S, d] with `text_offsets` [m + 1], or nested lists. Numbers are
f16, bf16, f32 or f64. Arrays stay in their files and are read by rows.
"""

from __future__ import annotations

import numpy as np

from ape_jax.config.outside import PREFIX
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.precomputed.opened import read_features
from ape_jax.data.precomputed.verified import Record
from ape_jax.data.vectors import Column, Numbered, Tokens, VectorPairs, VectorTable


def open_vectors(spec: str, key: str = "data.pairs") -> VectorPairs:
    """Opens and checks vectors.

    All of them are read once, to find values that are not finite and for the digest. For large
    files the result is kept in the cache folder: as long as they stay the same, they are not read
    again.

    Args:
      spec: one of the forms above.
      key: the config key to name in messages.

    Raises:
      UserError: a missing or damaged file, wrong shapes, counts that differ, values that are not
        finite.
    """
    where = f"{key}: {spec!r}"
    table, files = read_features(spec, key)
    arrays, text = table.arrays, None
    image = arrays.image.rows((*[1] * (3 - len(arrays.image.shape)), *arrays.image.shape[1:]))
    if arrays.text is not None and arrays.offsets is not None:
        text = Tokens(arrays.text.rows(arrays.text.shape[-1:]), arrays.offsets)
    count = len(image)
    bounds = np.concatenate([[0], np.cumsum(np.bincount(arrays.owner, minlength=count))])
    without = "row " if table.captions is not None or spec.endswith(".parquet") else ""
    vectors = VectorTable(
        spec=spec,
        vectors=image,
        bounds=bounds.astype(np.int64),
        names=Numbered(without, count) if table.ids is None else Column(table.ids),
        texts=(
            Numbered("vectors ", len(arrays.owner))
            if table.captions is None
            else Column(table.captions)
        ),
    )
    record = Record(files)
    known = record.read()
    if known is None:
        known = VectorPairs(vectors, text).read_through(where)
        record.write(known)
    return VectorPairs(vectors, text, known)


FEATURES = PairsFormat(name="features", spec="features:FILES", prefix=PREFIX, open=open_vectors)
