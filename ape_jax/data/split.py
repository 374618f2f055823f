"""Holding out a part of the pairs: `part:held-out:SHARE:SEED:SPEC` and `part:rest:...`.

A part is named by a spec of its own, so that whatever opens pairs opens it too. An image is in one
part only, and so is a copy of it under another name.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Literal, get_args

import numpy as np

from ape_jax.data.pairs import Pairs
from ape_jax.data.vectors import VectorPairs
from ape_jax.errors import UserError

PREFIX = "part:"
Which = Literal["held-out", "rest"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One part of pairs.

    Attributes:
      which: the part that is held out, or the rest.
      share: of the images that are held out, between 0 and 1.
      seed: of the choice.
      spec: the pairs.
    """

    which: Which
    share: float
    seed: int
    spec: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.which}:{self.share:g}:{self.seed}:{self.spec}"


def parse(spec: str, key: str) -> Part:
    """The part that a spec names.

    Example:
      >>> parse("part:held-out:0.1:0:pairs.jsonl", "data.pairs").spec
      'pairs.jsonl'

    Raises:
      UserError: for a text that names none.
    """
    which, *numbers, rest = (spec.removeprefix(PREFIX).split(":", 3) + [""] * 3)[:4]
    named: Which | None = next((name for name in get_args(Which) if name == which), None)
    try:
        share, seed = float(numbers[0]), int(numbers[1])
    except ValueError:
        share, seed = 0.0, 0
    if named is None or not 0 < share < 1:
        raise UserError(f"{key}: found {spec!r}; write part:held-out:SHARE:SEED:SPEC")
    return Part(which=named, share=share, seed=seed, spec=rest)


def take(part: Part, pairs: Pairs, key: str) -> Pairs:
    """The pairs of a part, in their order.

    Args:
      part: which.
      pairs: all of them.
      key: the config key to name in messages.

    Raises:
      UserError: for precomputed vectors, or pairs too few to hold any out.
    """
    if isinstance(pairs, VectorPairs):
        raise UserError(f"{key}: a part of precomputed vectors cannot be held out; name two files")
    held = _held_out(pairs, part.share, part.seed)
    if not held or len(held) > len(pairs) - 2:
        raise UserError(
            f"{key}: {part.spec} holds {len(pairs)} images, too few to hold out {part.share:g} of "
            "them; write data.split=0"
        )
    kept = [i for i in range(len(pairs)) if (i in held) == (part.which == "held-out")]
    return pairs.take(kept, str(part))


def _held_out(pairs: Pairs, share: float, seed: int) -> set[int]:
    """Indices: whole groups of equal images, in an order of the seed, up to the share."""
    groups: dict[bytes, list[int]] = collections.defaultdict(list)
    for i, content in enumerate(pairs.image_hashes):
        groups[content].append(i)
    found = list(groups.values())
    wanted = max(round(share * len(pairs)), 1)
    held: set[int] = set()
    for at in np.random.default_rng([seed, len(found)]).permutation(len(found)):
        if len(held) >= wanted:
            break
        if len(held) + len(found[at]) <= wanted or not held:
            held.update(found[at])
    return held
