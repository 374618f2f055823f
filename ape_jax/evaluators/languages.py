"""Retrieval by language: each language's captions alone with the images that have some in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.evaluators import retrieval

JOINT = ":"  # Between the name of a set and that of a language.


def by_language(
    zimg: Float[np.ndarray, "n e"],
    ztxt: Float[np.ndarray, "m e"],
    image_index: Integer[np.ndarray, " m"],
    names: Sequence[str],
    language: Integer[np.ndarray, " m"],
) -> dict[str, dict[str, float]]:
    """Retrieval metrics of each language.

    Args:
      zimg: image embeddings of unit length.
      ztxt: caption embeddings of unit length.
      image_index: the image of each caption.
      names: of the languages.
      language: of each caption, an index of `names`.

    Returns:
      `retrieval.retrieval_metrics` by the name of each language that occurs.
    """
    found = {}
    for name, chosen, images, index in _each(image_index, names, language):
        found[name] = retrieval.retrieval_metrics(zimg[images], ztxt[chosen], index)
    return found


def chance(
    image_index: Integer[np.ndarray, " m"],
    names: Sequence[str],
    language: Integer[np.ndarray, " m"],
) -> dict[str, dict[str, float]]:
    """What a random order would have, arguments as of `by_language`."""
    return {
        name: retrieval.chance_metrics(len(images), index)
        for name, _, images, index in _each(image_index, names, language)
    }


def _each(
    image_index: Integer[np.ndarray, " m"], names: Sequence[str], language: np.ndarray
) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """By language: its captions, the images that have some, and the image of each among these."""
    parts = []
    for number, name in enumerate(names):
        chosen = np.flatnonzero(language == number)
        if len(chosen):
            images, index = np.unique(image_index[chosen], return_inverse=True)
            parts.append((name, chosen, images, index))
    return parts


def named(name: str, found: Mapping[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The metrics of the languages of a set by the names of their rows, `test:ja`."""
    return {f"{name}{JOINT}{language}": metrics for language, metrics in found.items()}
