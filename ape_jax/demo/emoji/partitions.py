"""Further partitions of the emoji's concepts, by number: `train@3`, `validation@3`, `test@3`.

The concepts of the plain `test` were looked at while recipes were chosen, and those of `validation`
were made for it. A partition tests on neither:

* half of the concepts of the plain `train` are the *reserve*, drawn once, by a hash of the concept;
* `test@K` is about 55 % of the reserve, `validation@K` about 15 % of all other concepts, each by a
  hash of the concept and K; `train@K` is the rest, with the concepts of the plain `test` in it.

So no concept of any `test@K` is in any `validation@J`: what is chosen on validation sets has seen
no test concept. The sizes are about those of the plain splits, and as there training holds every
variant of a concept, the others one. A study that averages over several K tests on more concepts
than one split has. What is chosen by folds of `train@K` may be reported on `test@K`, and on no
other: half of the reserve is in `train@K`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re

from ape_jax.demo.emoji import concepts
from ape_jax.errors import UserError

MOST = 999
_RESERVE, _TEST, _VALIDATION = 0.5, 0.55, 0.15
_SPLIT = re.compile(r"(?P<side>[^@\[]+)@(?P<number>[1-9]\d{0,2})(?P<slice>\[.*\])?")
_SLICE = re.compile(r"\[(?P<first>\d+%?)?:(?P<last>\d+%?)?\]")


@dataclasses.dataclass(frozen=True)
class Partition:
    """One side of a numbered partition, or a slice of it.

    Attributes:
      side: `train`, `validation` or `test`.
      number: from 1 to `MOST`.
      slice: as it was written, `[:100]` or `[10%:20%]`; "" for all.
    """

    side: str
    number: int
    slice: str = ""


def parse(split: str) -> Partition | None:
    """Reads `train@3` or `train@3[:100]`; None for whatever is not written so.

    >>> parse("train@3[:10%]"), parse("train"), parse("dev@3"), parse("train@0")
    (Partition(side='train', number=3, slice='[:10%]'), None, None, None)
    """
    match = _SPLIT.fullmatch(split)
    if match is None or match["side"] not in concepts.SPLITS:
        return None
    return Partition(match["side"], int(match["number"]), match["slice"] or "")


def side_of(concept: str, number: int) -> str:
    """Computes the side of a concept in the partition of that number.

    Args:
      concept: the concept's key.
      number: of the partition.
    """
    if is_reserved(concept):
        return "test" if _hash("test", concept, number) < _TEST else "train"
    return "validation" if _hash("validation", concept, number) < _VALIDATION else "train"


def is_reserved(concept: str) -> bool:
    """Says whether a concept is kept for testing: no validation set of any partition holds it."""
    return concepts.split_of(concept) == "train" and _hash("reserve", concept) < _RESERVE


def cut(ids: list[str], part: Partition) -> list[str]:
    """Takes a slice of ids, a random sample: they are ordered by a hash, and then sorted again.

    Raises:
      UserError: no such slice.
    """
    if not part.slice:
        return sorted(ids)
    ordered = sorted(ids, key=lambda one: _hash("order", one))
    match = _SLICE.fullmatch(part.slice)
    if match is not None:
        first = _index(match["first"] or "0", len(ids))
        last = _index(match["last"] or "100%", len(ids))
        if first < last <= len(ids):
            return sorted(ordered[first:last])
    raise UserError(
        f"{part.side}@{part.number} has {len(ids)} emoji and no slice {part.slice!r}; write one "
        f"such as {part.side}@{part.number}[:100]"
    )


def _index(written: str, count: int) -> int:
    if written.endswith("%"):
        return round(int(written[:-1]) / 100 * count)
    return int(written)


def _hash(*parts: str | int) -> float:
    """Hashes a text to a number in [0, 1)."""
    key = " ".join(("ape_jax emoji partition", *map(str, parts)))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
