"""Languages of a finished model: which mean is taken off a text, and means of further languages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Float, Float32, Int, PyTree

from ape_jax import arguments
from ape_jax.align.heads import TextInput
from ape_jax.align.languages import UNKNOWN
from ape_jax.config import poolings
from ape_jax.errors import UserError
from ape_jax.features.outside import OutsideTower
from ape_jax.features.ragged import from_rows
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import embed
from ape_jax.runs.aligned import LANGUAGES, STATISTICS, AlignedModel
from ape_jax.runs.outputs import text_pooling
from ape_jax.towers.files.reading import say_once

_ROOT = "mean_sqrt_len"  # The pooling that a shift of tokens is stretched by.


def rows_of(
    aligned: AlignedModel, texts: Sequence[str], language: str | Sequence[str] | None
) -> Int[np.ndarray, " n"] | None:
    """The row of each text in the model's table of means, None of a model that has none.

    Args:
      aligned: the model.
      texts: n texts.
      language: of all texts, or of each; None tells it by their script.

    Raises:
      UserError: for names that are none, or not as many as texts.
    """
    known, names = aligned.model.languages, language
    if names is not None:
        each = [names] if isinstance(names, str) else names
        each = arguments.texts(each, "encode_text: language", "names of languages")
        names = each * len(texts) if isinstance(names, str) else each
    if known is None:
        if names is not None:
            raise UserError(
                "encode_text: language: the model has no means of languages (data.language); leave "
                "it out"
            )
        return None
    if names is not None and len(names) != len(texts):
        raise UserError(
            f"encode_text: language: found {len(names)} for {len(texts)} texts; write one for all, "
            "or one of each"
        )
    rows = known.rows(texts, names)
    if (unknown := rows == UNKNOWN).any():
        of = sorted({names[i] for i in np.flatnonzero(unknown)}) if names else []
        listed = ", ".join(map(repr, of)) or "a script that no training caption had"
        say_once(
            f"texts in {listed}: the model does not know the language, and takes the mean over its "
            f"own off them ({', '.join(dict(known.names))}); add_language gives it another"
        )
    return rows


def mean_of(
    aligned: AlignedModel, texts: Sequence[str], rows: int, outside: OutsideTower | None
) -> Float32[np.ndarray, " d"]:
    """The mean of texts of one language, as those of the training captions are.

    Args:
      aligned: the model.
      texts: of the language, without images.
      rows: texts a batch.
      outside: the text tower where another library runs it.
    """
    side = aligned.model.text
    pooling = poolings.parts(text_pooling.pooling(aligned.config, side.tower))[0]
    if outside is not None:
        tokens = from_rows(outside.texts(list(texts)))
        pooled, lengths = tokens.pool(pooling), tokens.lengths
    else:
        pooled, lengths = _pooled(aligned, texts, rows, pooling)
    stretch = np.sqrt(lengths).sum() if pooling == _ROOT else len(texts)
    return (pooled.sum(axis=0, dtype=np.float64) / stretch).astype(np.float32)


def _pooled(
    aligned: AlignedModel, texts: Sequence[str], rows: int, pooling: str
) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
    """One vector a text below the head, and the number of its tokens."""
    model, tower = aligned.model, aligned.model.text.tower
    rows = mesh_lib.round_up(rows, aligned.mesh)

    def encode(frozen: PyTree, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        found = model.encode_texts(frozen, batch)
        if found.mask is None:
            raise ValueError("texts of a frozen tower have a mask")
        given = TextInput(tokens=found.tokens, mask=found.mask)
        return given.pool(given.rows, pooling, tower.config), found.mask.sum(axis=1)

    run, pooled = jax.jit(encode), np.zeros((len(texts), model.text.token_width), np.float32)
    lengths = np.zeros(len(texts), np.int64)
    for batch, places in embed.text_batches(tower.prepare, texts, rows):
        placed = mesh_lib.place_whole_batch(batch, aligned.mesh, rows)
        found = (np.asarray(x)[: len(places)] for x in run(aligned.frozen, placed))
        pooled[places], lengths[places] = found
    return pooled, lengths


def is_means(value: object) -> bool:
    """Whether it maps names of languages to vectors."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(mean, np.ndarray) and mean.ndim == 1
        for name, mean in value.items()
    )


def with_means(
    aligned: AlignedModel, means: Mapping[str, Float32[np.ndarray, " d"]]
) -> AlignedModel:
    """The model with means of further languages, or others for those that it knows.

    Args:
      aligned: a model with means of languages.
      means: by the name of the language.
    """
    known = aligned.model.languages
    if known is None or not means:
        return aligned
    statistics = dict(aligned.frozen[STATISTICS])
    table = [np.asarray(statistics["languages"]), *(mean[None] for mean in means.values())]
    for name in means:
        known = known.with_name(name)
    placed = mesh_lib.place_replicated({"languages": np.concatenate(table)}, aligned.mesh)
    return dataclasses.replace(
        aligned,
        model=dataclasses.replace(aligned.model, languages=known),
        frozen={**aligned.frozen, STATISTICS: {**statistics, **placed}},
        meta={**aligned.meta, LANGUAGES: known.record},
    )
