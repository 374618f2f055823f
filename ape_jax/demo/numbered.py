"""Splits of numbered partitions, as a spec writes them: `train@3`, or a slice, `train@3[:100]`.

What the partitions are is said where the pairs are: `emoji.partitions`, `icons.partitions`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from typing import TypeVar

from ape_jax.errors import UserError

Row = TypeVar("Row")
_SPLIT = re.compile(r"(?P<side>[^@\[]+)@(?P<number>[1-9]\d{0,2})(?P<slice>\[.*\])?")
_SLICE = re.compile(r"\[(?P<first>\d+%?)?:(?P<last>\d+%?)?\]")


@dataclasses.dataclass(frozen=True)
class Part:
    """One side of a numbered partition, or a slice of it.

    Attributes:
      side: such as `train`.
      number: of the partition, from 1 to 999.
      slice: as it was written, `[:100]` or `[10%:20%]`; "" for all.
    """

    side: str
    number: int
    slice: str = ""

    def __str__(self) -> str:
        return f"{self.side}@{self.number}"


def parse(split: str, sides: Collection[str]) -> Part | None:
    """Reads a split of a partition; None for whatever is not written so.

    >>> parse("train@3[:10%]", ("train", "test"))
    Part(side='train', number=3, slice='[:10%]')
    >>> [parse(split, ("train", "test")) for split in ("train", "dev@3", "train@0")]
    [None, None, None]

    Args:
      split: what stands behind the last colon of a spec.
      sides: the sides that there are.
    """
    match = _SPLIT.fullmatch(split)
    if match is None or match["side"] not in sides:
        return None
    return Part(match["side"], int(match["number"]), match["slice"] or "")


def cut(rows: Sequence[Row], part: Part) -> Sequence[Row]:
    """Takes the slice of rows that a part asks for.

    >>> cut("abcd", Part("train", 3, "[25%:3]")), cut("abcd", Part("train", 3))
    ('bc', 'abcd')

    Args:
      rows: all of that side, in an order in which each slice is a random sample.
      part: the side and the slice.

    Raises:
      UserError: there is no such slice.
    """
    if not part.slice:
        return rows
    match = _SLICE.fullmatch(part.slice)
    if match is not None:
        first = _index(match["first"] or "0", len(rows))
        last = _index(match["last"] or "100%", len(rows))
        if first < last <= len(rows):
            return rows[first:last]
    raise UserError(
        f"{part} has {len(rows)} images and no slice {part.slice!r}; write one such as {part}[:100]"
    )


def _index(written: str, count: int) -> int:
    if written.endswith("%"):
        return round(int(written[:-1]) / 100 * count)
    return int(written)
