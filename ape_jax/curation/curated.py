"""The whole of a curation: what is left out, what is taken, and for which target."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from ape_jax.curation import agreement, repeated
from ape_jax.curation.choice import DIVERSITY, Choice, choose
from ape_jax.curation.target import Target, encode
from ape_jax.curation.towers import Towers
from ape_jax.curation.vectors import Vectors
from ape_jax.data.pairs import Pairs
from ape_jax.errors import UserError

# Of pairs at chance a fifth is above it; below, more good pairs go than wrong ones, which is what
# targets out of the ordinary need (tests/benchmarks/curation.py).
MISMATCHED = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What is left out, and how the rest is weighed.

    Attributes:
      count: number of pairs to choose.
      near: cosine above which an image nearly repeats another; 1 keeps all.
      mismatched: share of other captions that suit an image better than its own, above which the
        pair is left out; 1 keeps all.
      diversity: weight of being unlike what is chosen already.
      seed: of folds and samples.
    """

    count: int
    near: float = repeated.NEAR
    mismatched: float = MISMATCHED
    diversity: float = DIVERSITY
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curated:
    """What came of a pool.

    Attributes:
      pool: its pairs whose images could be read.
      target: what was to be served.
      rules: what was asked for.
      choice: the chosen pairs.
      shares: of other captions that suit each image better than its own (`agreement`), f32 [n];
        None where no pair was to be left out for it.
      repeats: the pair that each nearly repeats, itself for most, i64 [n].
    """

    pool: Pairs
    target: Target
    rules: Rules
    choice: Choice
    shares: Float32[np.ndarray, " n"] | None
    repeats: Int64[np.ndarray, " n"]

    @property
    def is_repeated(self) -> Bool[np.ndarray, " n"]:
        """Mask of the near-duplicates."""
        return self.repeats != np.arange(len(self.repeats))

    @property
    def is_mismatched(self) -> Bool[np.ndarray, " n"]:
        """Mask of the pairs whose caption does not suit their image; no near-duplicates."""
        if self.shares is None:
            return np.zeros(len(self.repeats), bool)
        return (self.shares > self.rules.mismatched) & ~self.is_repeated

    @property
    def chosen(self) -> Pairs:
        """The chosen pairs, in the order of choice."""
        return self.pool.take(self.choice.rows)

    def left_out(self) -> Mapping[str, int]:
        """How many pairs were left out, by kind."""
        counts = {
            "near-duplicate": int(self.is_repeated.sum()),
            "mismatched": int(self.is_mismatched.sum()),
        }
        rest = len(self.pool) - sum(counts.values())
        far = rest - self.choice.considered
        return {**counts, "far from the target": far, "not needed": rest - far - self.taken}

    @property
    def taken(self) -> int:
        """Number of chosen pairs."""
        return len(self.choice.rows)

    def record(self) -> dict[str, Any]:
        """The figures for JSON."""
        served = np.bincount(self.choice.target, minlength=len(self.target))
        return {
            "pool": len(self.pool),
            "chosen": self.taken,
            "left_out": dict(self.left_out()),
            "unrelated": None
            if self.shares is None
            else round(agreement.unrelated(self.shares), 4),
            "target": {
                "kind": self.target.kind,
                "spec": self.target.spec,
                "count": len(self.target),
                "without_a_pair": int((served == 0).sum()),
            },
            "rules": dataclasses.asdict(self.rules),
        }


def check(rules: Rules, pool: Pairs) -> None:
    """Raises UserError for more pairs than the pool has."""
    if rules.count > len(pool):
        raise UserError(
            f"--count: the pool has {len(pool):,} pairs; write at most that, found {rules.count:,}"
        )


def curate(towers: Towers, pool: Pairs, target: Target, rules: Rules) -> Curated:
    """Chooses the pairs of a pool that serve a target.

    Near-duplicates and mismatched pairs are left out first; of near-duplicates the pair stays whose
    caption suits it best.

    Args:
      towers: what encodes both.
      pool: the pairs to choose from.
      target: what is to be served.
      rules: what is left out, and how the rest is weighed.

    Raises:
      UserError: for images or captions that cannot be read, or fewer pairs than are asked for.
    """
    check(rules, pool)
    dataset = towers.encode(pool, "pool")
    vectors = towers.vectors(dataset)
    target, queries = encode(target, towers, vectors)
    shares, repeats, allowed = _usable(vectors, rules)
    if rules.count > (there := int(allowed.sum())):
        raise UserError(
            f"--count: {there:,} of {len(pool):,} pairs are left without near-duplicates and "
            f"mismatched ones; write at most that, or raise --near or --mismatched, found "
            f"{rules.count:,}"
        )
    choice = choose(vectors, allowed, queries, rules.count, diversity=rules.diversity)
    kept = dataset.pairs
    assert isinstance(kept, Pairs)
    return Curated(
        pool=kept,
        target=target,
        rules=rules,
        choice=choice,
        shares=shares,
        repeats=repeats,
    )


def _usable(
    vectors: Vectors, rules: Rules
) -> tuple[Float32[np.ndarray, " n"] | None, Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The shares of `agreement`, what each pair repeats, and the pairs that may be chosen."""
    shares, order = None, np.arange(len(vectors))
    if rules.mismatched < 1:
        shares = agreement.agreement(vectors.paired, seed=rules.seed)
        order = np.argsort(shares, kind="stable")
    rank = np.empty(len(vectors), np.int64)
    rank[order] = np.arange(len(vectors))
    repeats = repeated.repeated(vectors, rank, near=rules.near, seed=rules.seed)
    allowed = repeats == np.arange(len(vectors))
    return shares, repeats, allowed if shares is None else allowed & (shares <= rules.mismatched)
