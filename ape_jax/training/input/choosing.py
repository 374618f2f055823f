"""Sampling captions of records without state: some of their own, or of languages in turn."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from ape_jax.data import sampling
from ape_jax.data.languages.spoken import language_groups
from ape_jax.data.table.texts import Captions


def several(
    counts: Int[np.ndarray, "b"],
    positions: Int[np.ndarray, "b"],
    seed: int,
    name: str,
    number: int,
) -> list[Int[np.ndarray, "b"]]:
    """Samples a number of things out of `counts` for each position.

    They differ where there are enough; where there are fewer, all of them come, and what is missing
    is sampled from all.

    Args:
      counts: i64 [b], how many there are at each position.
      positions: i64 [b].
      seed: seed of the run.
      name: of the streams of random numbers.
      number: how many are sampled.
    """
    chosen = [sampling.uniform(seed, name, positions, counts)]
    for taken in range(1, number):
        enough = counts > taken
        stream = f"{name} {taken + 1}"
        free = sampling.uniform(seed, stream, positions, counts - taken * enough)
        another = free
        # The one with as many free ones before it: up from `free`, past each taken one.
        for _ in chosen:
            another = free + enough * sum(other <= another for other in chosen)
        chosen.append(another)
    return chosen


class InLanguages:
    """Samples captions so that the languages of a record count alike.

    Args:
      captions: of all records, with their languages.
    """

    def __init__(self, captions: Captions):
        group, self._sizes, of_image = language_groups(captions)
        self._captions = np.argsort(group, kind="stable")  # Those of a group after each other.
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._first = np.searchsorted(of_image, np.arange(len(captions.counts) + 1))

    def sample(
        self,
        index: Int[np.ndarray, "b"],
        positions: Int[np.ndarray, "b"],
        seed: int,
        positives: int,
    ) -> Int[np.ndarray, "b p"]:
        """Samples languages of a record, different ones where it has enough, and a caption of each.

        Args:
          index: i64 [b], the record at each position.
          positions: i64 [b].
          seed: seed of the run.
          positives: P.

        Returns:
          Places in `Captions.text_index`, i64 [b, P].
        """
        first = self._first[index]
        chosen = []
        spoken = self._first[index + 1] - first
        for number, one in enumerate(several(spoken, positions, seed, "language", positives), 1):
            stream = "caption" if number == 1 else f"caption {number}"
            group = first + one
            caption = sampling.uniform(seed, stream, positions, self._sizes[group])
            chosen.append(self._captions[self._starts[group] + caption])
        return np.stack(chosen, axis=-1)
