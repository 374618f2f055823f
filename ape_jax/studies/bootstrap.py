"""Paired differences between methods, with intervals over queries and seeds at once.

A mean over seeds hides that all seeds are tested on the same few queries, and a bootstrap over
queries alone hides the seeds. Here both are resampled in each draw (a hierarchical, or multilevel,
bootstrap): queries once for all methods, seeds and domains, because they are the same ones there,
and in each domain its seeds, once for all methods that have as many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Integer, UInt64

DRAWS = 10_000
LEVEL = 0.95
_CHUNK = 1 << 21  # Weights at a time: 16 MiB.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hits:
    """What one method found in one domain, in each of its runs.

    Attributes:
      id: what is resampled, uint64 [n]: equal ids, also of several domains, come together.
      i2t: whether each image finds a caption of its own, [s, n].
      t2i: how many of each image's captions find it, [s, n].
      captions: how many captions each image has, [n].
    """

    id: UInt64[np.ndarray, " n"]
    i2t: Float[np.ndarray, "s n"]
    t2i: Float[np.ndarray, "s n"]
    captions: Float[np.ndarray, " n"]

    def recall(self, weights: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b s"]:
        """The mean of both ways' recall under weights of the images, in percent, of each run."""
        images = weights @ self.i2t.T / weights.sum(axis=1, keepdims=True)
        texts = weights @ self.t2i.T / (weights @ self.captions)[:, None]
        return 50 * (images + texts)


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much higher one method's recall is than another's, in percent, and its interval."""

    value: float
    low: float
    high: float


def differences(
    methods: Mapping[str, Sequence[Hits]], reference: str, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Difference]:
    """Computes reference minus method for each other method, with 95 % percentile intervals.

    Example:
      >>> import numpy as np
      >>> ids, one = np.arange(8, dtype=np.uint64), np.ones(8)
      >>> def hits(x):
      ...     return [Hits(id=ids, i2t=np.array([x]), t2i=np.array([x]), captions=one)]
      >>> found = differences({"a": hits(one), "b": hits(0 * one)}, "a", draws=100)
      >>> found["b"]
      Difference(value=100.0, low=100.0, high=100.0)

    Args:
      methods: method -> its hits by domain; the same domains in the same order for all.
      reference: one of them.
      draws: number of bootstrap draws.
      seed: of the draws.

    References:
      Davison, Hinkley, `Bootstrap Methods and their Application`, 1997 (section 3.8, hierarchical
      data; 5.3, percentile intervals).
    """
    plain = {name: _mean(hits, None, None) for name, hits in methods.items()}
    drawn = _draws(methods, draws, np.random.default_rng(seed))
    tails = 50 * (1 - LEVEL), 50 * (1 + LEVEL)
    found = {}
    for name in methods:
        if name != reference:
            low, high = np.percentile(drawn[reference] - drawn[name], tails)
            value = float(plain[reference][0] - plain[name][0])
            found[name] = Difference(value, float(low), float(high))
    return found


def _draws(
    methods: Mapping[str, Sequence[Hits]], draws: int, rng: np.random.Generator
) -> dict[str, Float[np.ndarray, " b"]]:
    """The recall of each method in every draw."""
    domains = next(iter(methods.values()))
    ids, inverse = np.unique(np.concatenate([hits.id for hits in domains]), return_inverse=True)
    places = np.split(inverse, np.cumsum([len(hits.id) for hits in domains])[:-1])
    size = max(1, _CHUNK // len(ids))
    found: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    for start in range(0, draws, size):
        count = min(size, draws - start)
        weights = _resampled(len(ids), count, rng)
        queries = [weights[:, place] for place in places]
        runs = sorted({len(h.i2t) for hits in methods.values() for h in hits})
        seeds = [{n: _resampled(n, count, rng) for n in runs} for _ in domains]
        for name, hits in methods.items():
            found[name].append(_mean(hits, queries, seeds))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _mean(
    hits: Sequence[Hits],
    queries: Sequence[Float[np.ndarray, "b n"]] | None,
    seeds: Sequence[Mapping[int, Float[np.ndarray, "b s"]]] | None,
) -> Float[np.ndarray, " b"]:
    """The mean over domains of the mean over seeds of the recall."""
    total = np.zeros(1)
    for i, one in enumerate(hits):
        images = np.ones((1, len(one.id))) if queries is None else queries[i]
        runs = len(one.i2t)
        weights = np.ones((1, runs)) if seeds is None else seeds[i][runs]
        total = total + (one.recall(images) * weights).sum(axis=1) / runs
    return total / len(hits)


def _resampled(n: int, count: int, rng: np.random.Generator) -> Float[np.ndarray, "b n"]:
    """How often each of n comes in a sample of n with replacement, in each of several draws."""
    rows = rng.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
    return np.bincount(rows.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)


def hits_of(
    ids: UInt64[np.ndarray, " n"],
    runs: Sequence[tuple[Integer[np.ndarray, " n"], Integer[np.ndarray, " m"]]],
    image_index: Integer[np.ndarray, " m"],
    k: int = 10,
) -> Hits:
    """Makes hits at rank k of the ranks of several runs.

    Args:
      ids: of the images.
      runs: (ranks of images, ranks of captions) of each run.
      image_index: the image of each caption.
      k: the rank up to which a query is a hit.
    """
    n, m = len(ids), len(image_index)
    return Hits(
        id=ids,
        i2t=np.array([i2t <= min(k, m) for i2t, _ in runs], np.float64),
        t2i=np.array([np.bincount(image_index, t2i <= k, n) for _, t2i in runs]),
        captions=np.bincount(image_index, minlength=n).astype(np.float64),
    )
