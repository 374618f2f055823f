"""Leaves out pairs whose image cannot be decoded, and counts them with the other problems."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from jaxtyping import Bool

from ape_jax.data.labelled import Labelled
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.table.problems import Problem
from ape_jax.data.undecodable import undecodable
from ape_jax.errors import UserError
from ape_jax.parallel.hosts import say

Images = TypeVar("Images", Pairs, Labelled)

# Images that an earlier start or another process has met are looked at once more, for the reason.
_AGAIN = 1000


def leave_out_unseen(
    pairs: Pairs,
    seen: Bool[np.ndarray, "n"],
    met: dict[int, Problem],
    reading: Reading,
    name: str,
) -> Pairs:
    """The pairs whose image has features; says how many have none.

    Every process leaves out the same ones, whichever of them has met them.

    Args:
      pairs: the pairs.
      seen: which of them have features.
      met: what is wrong with images that this process has met.
      reading: says how many may be left out.
      name: what to call the pairs.

    Raises:
      UserError: more are left out than may be.
    """
    return _without(pairs, unseen(pairs, seen, met, name), reading, name)


def unseen(
    pairs: Pairs, seen: Bool[np.ndarray, "n"], met: dict[int, Problem], name: str
) -> dict[int, Problem]:
    """What is wrong with the images that have no features; arguments as of `leave_out_unseen`."""
    bad = np.flatnonzero(~seen).tolist()
    again = [row for row in bad if row not in met][:_AGAIN]
    found = met | dict(undecodable(pairs.image_ref, again, f"{name}: looking again"))
    return {row: found.get(row) or _forgotten(pairs, row) for row in bad}


def leave_out_unreadable(pairs: Images, reading: Reading, name: str) -> Images:
    """The pairs, or labelled images, whose image can be decoded.

    For images that are not encoded beforehand.

    Args:
      pairs: the pairs.
      reading: says how many may be left out.
      name: what to call the pairs.

    Raises:
      UserError: more are left out than may be.
    """
    found = dict(undecodable(pairs.image_ref, range(len(pairs)), f"{name}: decoding images"))
    return _without(pairs, found, reading, name)


def _without(pairs: Images, problems: dict[int, Problem], reading: Reading, name: str) -> Images:
    if not problems:
        return pairs
    kept = pairs.without(problems)
    kept.problems.check(reading, name, pairs.spec)
    if not len(kept):
        raise UserError(
            f"{name}: none of the images of {pairs.spec!r} can be read ({kept.problems})"
        )
    say(f"{name}: {kept.problems}; the first: {next(iter(problems.values()))}")
    return kept


def _forgotten(pairs: Pairs, row: int) -> Problem:
    reason = "the image could not be read when it was encoded; replace it or remove it"
    return Problem(pairs.image_ref(row).name, "damaged image", reason)
