"""The languages of captions, from a column of the pairs or by their script."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int

from ape_jax.data.overview.scripts import Scripts
from ape_jax.data.table.stored import Table
from ape_jax.data.table.texts import Captions, Spoken, Texts


def by_column(captions: Captions, table: Table, rows: Int[np.ndarray, " n"]) -> Captions:
    """Adds the languages that a column of the pairs names.

    Args:
      captions: those of the rows.
      table: the pairs, whose `languages` were read.
      rows: the rows of the table that are used.
    """
    import pyarrow as pa

    found = pa.chunked_array((x.flatten() for x in table.column("languages", rows)), pa.string())
    if len(found) != len(captions.text_index):
        raise ValueError(f"{len(captions.text_index)} captions have {len(found)} languages")
    encoded = found.combine_chunks().dictionary_encode()
    numbers = np.asarray(encoded.indices).astype(np.int64)
    return dataclasses.replace(captions, spoken=_spoken(encoded.dictionary.to_pylist(), numbers))


def by_script(captions: Captions) -> Captions:
    """Adds the scripts that the captions are written in as their languages."""
    names, numbers = _scripts(captions.texts)
    return dataclasses.replace(captions, spoken=_spoken(names, numbers[captions.text_index]))


def scripts_of(texts: Sequence[str]) -> list[str]:
    """The script of most letters of each text; 'no letters' where there are none.

    Example:
      >>> scripts_of(["a cat", "кошка"])
      ['Latin', 'Cyrillic']
    """
    names, numbers = _scripts(texts)
    return [names[number] for number in numbers.tolist()]


def _scripts(texts: Sequence[str]) -> tuple[list[str], Int[np.ndarray, " n"]]:
    """Names of scripts, and the number of each text's among them."""
    import pyarrow as pa

    found = Scripts()
    arrays = texts.arrays if isinstance(texts, Texts) else [pa.array(list(texts), pa.string())]
    numbers = [found.of(array) for array in arrays]
    return found.names, np.concatenate([np.zeros(0, np.int64), *numbers])


def _spoken(names: Sequence[str], numbers: Int[np.ndarray, " m"]) -> Spoken:
    """Languages by number, as those that occur in order of their names."""
    used, index = np.unique(numbers, return_inverse=True)
    named = np.asarray([names[number] for number in used], object)
    order = np.argsort(named, kind="stable")
    place = np.argsort(order, kind="stable")
    return Spoken(tuple(named[order].tolist()), place[index].astype(np.int64))


def balanced(captions: Captions) -> Float64[np.ndarray, " m"]:
    """How often each caption comes where each image draws a language and then a caption of it.

    Args:
      captions: with their languages, or without: then each image draws a caption.

    Returns:
      f64 [m]; those of an image sum to one.
    """
    if captions.spoken is None:
        return np.repeat(1 / np.maximum(captions.counts, 1), captions.counts)
    group, sizes, of_image = language_groups(captions)[:3]
    return 1 / (sizes[group] * np.bincount(of_image)[of_image][group])


def language_groups(
    captions: Captions,
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " g"], Int[np.ndarray, " g"]]:
    """The captions of one image in one language, image after image.

    Returns:
      The group of each caption, the number of captions of each group, and its image.
    """
    assert captions.spoken is not None
    count = len(captions.spoken.names)
    keys = captions.image_index * count + captions.spoken.index
    found, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    return group, sizes, found // count
