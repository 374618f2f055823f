"""Further partitions of the icons, by number: `train@3`, `validation@3`, `test@3`, `test_sets@3`.

They split the drawings that the plain splits hold (`plan`) anew, by other concepts and makers:

* half of the concepts of the plain `train` are the *reserve*, drawn once, by a hash of the concept.
  No concept outside of it is ever tested: those of the plain `validation`, `test` and `test_sets`
  were looked at while recipes were chosen;
* partition K holds out whole makers of the plain `train`, in the order of a hash of the maker and
  K, until they have 5 % of its drawings; makers of very few or very many drawings are passed over;
* `test_sets@K` holds the concepts of the reserve that a held-out maker draws, `test@K` about 8 % of
  the reserve's others, `validation@K` about 5 % of all concepts outside of the reserve; one drawing
  a concept, and none that nearly equals one of `train@K`;
* `train@K` holds all other concepts, in the drawings of makers that are not held out.

So no concept of a `test@K` or `test_sets@K` is in any `validation@J`, and none of the makers that
the plain `test_sets` holds out is held out again. What is chosen by folds of `train@K` may be
reported on the tests of K, and on no others.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

from ape_jax.demo.icons.plan import number

_RESERVE, _TEST, _VALIDATION = 0.5, 0.08, 0.05
_HELD_OUT = 0.05
_FEWEST, _MOST = 100, 900


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawings:
    """The drawings of all plain splits, a list a column.

    Attributes:
      id: "mdi:account-heart".
      split: the plain split.
      concept: its key.
      maker: who drew it.
    """

    id: Sequence[str]
    split: Sequence[str]
    concept: Sequence[str]
    maker: Sequence[str]


def is_reserved(concept: str, split: str) -> bool:
    """Says whether a concept of a plain split is kept for testing."""
    return split == "train" and number("partition reserve", concept) < _RESERVE


def held_out_makers(drawings: Drawings, partition: int) -> frozenset[str]:
    """Chooses the makers that a partition holds out."""
    counts = collections.Counter(
        maker for maker, split in zip(drawings.maker, drawings.split) if split == "train"
    )
    usable = [maker for maker, count in counts.items() if _FEWEST <= count <= _MOST]
    chosen: set[str] = set()
    left = _HELD_OUT * counts.total()
    for maker in sorted(usable, key=lambda m: number("partition maker", m, str(partition))):
        if left > 0:
            chosen.add(maker)
            left -= counts[maker]
    return frozenset(chosen)


def sides(drawings: Drawings, partition: int) -> list[str]:
    """Computes the side of every drawing in a partition; "" for those that it leaves out.

    Args:
      drawings: all of them.
      partition: its number.
    """
    makers = held_out_makers(drawings, partition)
    members: dict[str, list[int]] = {}
    for i in sorted(range(len(drawings.id)), key=lambda i: number("drawing", drawings.id[i])):
        members.setdefault(drawings.concept[i], []).append(i)
    found = [""] * len(drawings.id)
    for concept, rows in members.items():
        held_out = [i for i in rows if drawings.maker[i] in makers]
        seen = [i for i in rows if drawings.maker[i] not in makers]
        reserved = is_reserved(concept, drawings.split[rows[0]])
        side = _side(concept, partition, reserved, bool(held_out))
        used = held_out if side == "test_sets" else seen
        for i in used if side == "train" else used[:1]:
            found[i] = side
    return found


def _side(concept: str, partition: int, reserved: bool, held_out: bool) -> str:
    if reserved and held_out:
        return "test_sets"
    u = number("partition concept", concept, str(partition))
    if reserved:
        return "test" if u < _TEST else "train"
    return "validation" if u < _VALIDATION else "train"


def order(one: str) -> float:
    """Computes the key by which ids are sorted before a slice is taken, as a random sample."""
    return number("partition order", one)
