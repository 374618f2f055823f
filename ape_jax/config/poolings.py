"""The ways in which tokens become one vector, by name; several are joined by "+"."""

from __future__ import annotations

MODES = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "last")
"""Those that need no parameters, in the order in which sentence-transformers joins them."""
OWN = "own"
EXPECTS = f"one of {', '.join(map(repr, MODES))}, or several joined, 'cls+mean'"


def parts(pooling: str) -> tuple[str, ...]:
    """The modes that a pooling joins, in order; () where one of them is unknown or twice there.

    Example:
      >>> parts("cls+mean"), parts("map")
      (('cls', 'mean'), ())
    """
    found = tuple(pooling.split("+"))
    return found if set(found) <= set(MODES) and len(set(found)) == len(found) else ()


def is_own_or_pooling(value: object) -> bool:
    """Whether it is 'own', the tower's pooling, or one of these."""
    return value == OWN or is_pooling(value)


def is_pooling(value: object) -> bool:
    """Whether it is a mode, or several joined."""
    return isinstance(value, str) and bool(parts(value))
