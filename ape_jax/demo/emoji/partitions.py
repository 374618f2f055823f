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

import hashlib

from ape_jax.demo.emoji import concepts

_RESERVE, _TEST, _VALIDATION = 0.5, 0.55, 0.15


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


def order(one: str) -> float:
    """Computes the key by which ids are sorted before a slice is taken, as a random sample."""
    return _hash("order", one)


def _hash(*parts: str | int) -> float:
    """Hashes a text to a number in [0, 1)."""
    key = " ".join(("ape_jax emoji partition", *map(str, parts)))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
