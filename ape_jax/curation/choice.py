"""Chooses the pairs that serve a target: its even cover, by pairs that are unlike each other."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float32, Int64
from scipy import sparse

from ape_jax.curation.cells import cells
from ape_jax.curation.greedy import Cover, Facility, Term, greedy
from ape_jax.curation.target import Queries
from ape_jax.curation.vectors import BLOCK, Vectors
from ape_jax.storage.row_array import blocks
from ape_jax.terminal.progress import track

DIVERSITY = 0.0
# Candidates of each target, as a multiple of its even share, and neighbours of each candidate.
_WIDE, _FEWEST, _NEIGHBOURS = 8, 64, 16
_TARGETS = 1024  # Compared together.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen pairs, in the order of choice.

    Attributes:
      rows: of the pool, i64 [k].
      target: the target that each is nearest to, i64 [k].
      cosine: to that target, f32 [k].
      considered: number of pairs that were candidates of any target.
    """

    rows: Int64[np.ndarray, " k"]
    target: Int64[np.ndarray, " k"]
    cosine: Float32[np.ndarray, " k"]
    considered: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidates:
    """The nearest pairs of each target.

    Attributes:
      rows: of the pool, ascending, i64 [m].
      cosines: of each to the targets that have it among their nearest, [m, targets].
    """

    rows: Int64[np.ndarray, " m"]
    cosines: sparse.csr_array


def choose(
    vectors: Vectors,
    allowed: Bool[np.ndarray, " n"],
    queries: Queries,
    count: int,
    *,
    diversity: float = DIVERSITY,
    seed: int = 0,
) -> Choice:
    """Chooses pairs that cover targets evenly and are unlike each other.

    The nearest pairs of each target are candidates. Among them a greedy search maximises the cover
    of targets (`greedy.Cover` of squared cosines) and how well all candidates are represented
    (`greedy.Facility`).

    Args:
      vectors: of the pool.
      allowed: pairs that may be chosen, at least `count`.
      queries: the targets.
      count: number of pairs to choose.
      diversity: weight of the second part; 0 leaves it out.
      seed: of the cells in which neighbours are looked for.
    """
    found = candidates(vectors, np.flatnonzero(allowed), queries, count)
    served = found.cosines.copy()
    served.data = np.maximum(served.data, 0) ** 2
    terms: list[Term] = [Cover(served)]
    if diversity:
        whole = float(np.log1p(served.sum(axis=0)).sum())
        weight = np.asarray(served.max(axis=1).todense(), np.float64).ravel()
        weight *= diversity * whole / max(weight.sum(), 1e-12)
        terms.append(Facility(neighbours(vectors, found.rows, seed), weight))
    picked, _ = greedy(terms, len(found.rows), count)
    nearest = found.cosines[picked]
    return Choice(
        rows=found.rows[picked],
        target=np.asarray(nearest.argmax(axis=1), np.int64).ravel(),
        cosine=np.asarray(nearest.max(axis=1).todense(), np.float32).ravel(),
        considered=len(found.rows),
    )


def candidates(
    vectors: Vectors, allowed: Int64[np.ndarray, " a"], queries: Queries, count: int
) -> Candidates:
    """Finds the nearest pairs of each target, at least `count` in all.

    Args:
      vectors: of the pool.
      allowed: rows that may be chosen, ascending, at least `count`.
      queries: the targets.
      count: number of pairs to choose.
    """
    targets = len(queries)
    wide = max(_FEWEST, -(-_WIDE * count // targets))
    while True:
        wide = min(wide, len(allowed))
        rows, cosines = _nearest(vectors, allowed, queries, wide)
        unique, at = np.unique(rows, return_inverse=True)
        if len(unique) >= count:
            break
        wide *= 2  # Targets have many of their nearest in common.
    # A stored cosine of zero or less would be read as none.
    values = np.maximum(cosines.ravel(), 1e-6)
    of = np.repeat(np.arange(targets), wide)
    shape = (len(unique), targets)
    return Candidates(rows=unique, cosines=sparse.csr_array((values, (at.ravel(), of)), shape))


def neighbours(vectors: Vectors, rows: Int64[np.ndarray, " m"], seed: int) -> sparse.csr_array:
    """Cosines of rows to their nearest among them, the mean over both towers, [m, m].

    Each row is near to itself, and nearness is mutual. Neighbours are looked for within cells
    (`cells`).
    """

    def read(chosen: slice | np.ndarray) -> Float32[np.ndarray, "b e"]:
        both = vectors.images(rows[chosen]), vectors.texts(rows[chosen])
        return np.concatenate(both, axis=1) / np.float32(np.sqrt(2))

    size, found = len(rows), cells(read, len(rows), seed)
    first: list[np.ndarray] = []
    second: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for members in track(found, "comparing candidates", len(found), "cells"):
        x = read(members)
        few = min(_NEIGHBOURS, len(members))
        for block in blocks(len(members), BLOCK):
            cosines = x[block] @ x.T
            near = np.argpartition(-cosines, few - 1, axis=1)[:, :few]
            values.append(np.take_along_axis(cosines, near, axis=1).ravel())
            first.append(np.repeat(members[block], few))
            second.append(members[near].ravel())
    one, other, value = (np.concatenate(x) for x in (first, second, values))
    # Both ways, and once where two rows have met in two cells.
    key, at = np.unique(np.concatenate([one * size + other, other * size + one]), True)
    near = np.maximum(np.concatenate([value, value])[at], 1e-6)
    return sparse.csr_array((near, (key // size, key % size)), (size, size))


def _nearest(
    vectors: Vectors, allowed: Int64[np.ndarray, " a"], queries: Queries, wide: int
) -> tuple[Int64[np.ndarray, "t w"], Float32[np.ndarray, "t w"]]:
    """The nearest rows of each target and their cosines, in one pass over the pool."""
    targets = len(queries)
    rows = np.zeros((targets, 0), np.int64)
    best = np.zeros((targets, 0), np.float32)
    places = blocks(len(allowed), BLOCK)
    for block in track(places, "comparing with the target", len(places), f"blocks of {BLOCK}"):
        chosen = allowed[block]
        image = vectors.images(chosen) if queries.image is not None else None
        text = vectors.texts(chosen) if queries.text is not None else None
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        for part in blocks(targets, _TARGETS):
            cosines = queries.cosines(part, image, text)
            values = np.concatenate([best[part], cosines], axis=1)
            names = np.concatenate(
                [rows[part], np.broadcast_to(chosen, (len(cosines), len(chosen)))], axis=1
            )
            if values.shape[1] > wide:
                top = np.argpartition(-values, wide - 1, axis=1)[:, :wide]
                values, names = (np.take_along_axis(x, top, axis=1) for x in (values, names))
            kept.append((values, names))
        best, rows = (np.concatenate(x) for x in zip(*kept, strict=True))
    return rows, best
