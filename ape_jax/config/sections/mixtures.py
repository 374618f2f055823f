"""Several sources of pairs in one value: `a.jsonl::b.tar::weights=2,1`.

In a config file they may be a list of specs, or a mapping from specs to weights; what is kept is
the text.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ape_jax.errors import UserError

BETWEEN = "::"
_WEIGHTS = "weights="


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Sources of pairs, in order.

    Attributes:
      specs: of each source.
      weights: how often an image of each source comes, in proportion; None is equally often.
    """

    specs: tuple[str, ...]
    weights: tuple[float, ...] | None = None

    def __str__(self) -> str:
        listed = (
            () if self.weights is None else (_WEIGHTS + ",".join(f"{w:g}" for w in self.weights),)
        )
        return BETWEEN.join((*self.specs, *listed))


def parse(spec: str, key: str) -> Mixture:
    """The sources that a spec names.

    Example:
      >>> parse("a.jsonl::b.tar::weights=2,1", "data.pairs").weights
      (2.0, 1.0)

    Args:
      spec: of one source, or of several with `::` between them.
      key: the config key to name in messages.

    Raises:
      UserError: an empty source, or weights that are not one positive number a source.
    """
    *specs, last = spec.split(BETWEEN)
    if not specs:
        return Mixture((spec,))
    if not last.startswith(_WEIGHTS):
        specs, last = [*specs, last], ""
    if not all(specs):
        raise UserError(f"{key}: {spec!r} names an empty source; write a.jsonl::b.tar")
    if not last:
        return Mixture(tuple(specs))
    try:
        weights = tuple(float(text) for text in last.removeprefix(_WEIGHTS).split(","))
    except ValueError:
        weights = ()
    if len(weights) != len(specs) or not all(0 < w < math.inf for w in weights):
        raise UserError(
            f"{key}: {spec!r} has {len(specs)} sources and {last!r}; write one number above 0 for "
            "each, as in a.jsonl::b.tar::weights=2,1"
        )
    return Mixture(tuple(specs), weights)


def text_of(value: Any) -> Any:
    """The text of a list of specs, or of a mapping from specs to weights; other values stay.

    Example:
      >>> text_of(["a.jsonl", "b.tar"]), text_of({"a.jsonl": 2, "b.tar": 1})
      ('a.jsonl::b.tar', 'a.jsonl::b.tar::weights=2,1')
    """
    if isinstance(value, list | tuple) and value and all(map(_is_spec, value)):
        return BETWEEN.join(value)
    if isinstance(value, Mapping) and value and all(map(_is_spec, value)):
        weights = tuple(value.values())
        if all(isinstance(w, int | float) and not isinstance(w, bool) for w in weights):
            return str(Mixture(tuple(value), weights))
    return value


def texts_of(value: Any) -> Any:
    """`text_of` for each value of a mapping from names to pairs."""
    if not isinstance(value, Mapping):
        return value
    return {name: text_of(spec) for name, spec in value.items()}


def _is_spec(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and BETWEEN not in value
