"""The kinds of value that a config key can hold, each with its check and its words."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Field:
    """One key: its default, a test for its value and the words that say what passes the test.

    The words may be a function, where they depend on what is registered.

    Attributes:
      default: value where none is given.
      expects: what passes the test.
      check: the test.
      why: one line for `--help-config` and the docs: what the key does, or what it is for.
      canonical: makes the form that is kept out of other ways to write a value.
    """

    default: Any
    expects: str | Callable[[], str]
    check: Callable[[Any], bool]
    why: str = ""
    canonical: Callable[[Any], Any] | None = None

    def explained(self, why: str) -> Field:
        """The same with a line on what the key does."""
        return dataclasses.replace(self, why=why) if why else self

    @property
    def words(self) -> str:
        """What passes the test."""
        return self.expects if isinstance(self.expects, str) else self.expects()


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


BY_DATA = "auto"
"""What is written for a value that the data choose, such as a layer, or that follows from them."""


def integer(default: int, low: int, high: int = 2**31 - 1) -> Field:
    """An integer between two bounds; the step counter's by default."""

    def check(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Field(default, f"an integer from {low} to {high}", check)


def layers(default: int) -> Field:
    """A layer of a tower, or several different ones, or those that the data choose."""
    one = integer(default, -1, 1000)

    def check(value: Any) -> bool:
        if value == BY_DATA:
            return True
        if not isinstance(value, tuple):
            return one.check(value)
        return len(value) > 1 and all(map(one.check, value)) and len(set(value)) == len(value)

    words = f"{one.expects}, or several different ones, (9, 11, -1), or 'auto'"
    return Field(default, words, check, canonical=lambda v: tuple(v) if type(v) is list else v)


def widths() -> Field:
    """Prefixes of an embedding: how many of its first numbers each has, the narrowest first."""

    def check(value: Any) -> bool:
        ok = isinstance(value, tuple) and all(type(v) is int and 0 < v < 2**20 for v in value)
        return ok and list(value) == sorted(set(value))

    return Field((), "() or whole numbers of at least 1 in rising order, (64, 128, 256)", check)


def automatic(field: Field, follows: str) -> Field:
    """A number that may also be left open: -1, also written "auto"; see `config.automatic`.

    Args:
      field: the kind of value.
      follows: what an open value follows from, for messages.
    """
    return dataclasses.replace(
        field,
        expects=f"{field.words}, or 'auto' for what follows from {follows}",
        check=lambda v: field.check(v) or (is_number(v) and v == -1),
        canonical=lambda v: -1 if isinstance(v, str) and v == BY_DATA else v,
    )


def number(default: float, low: float, high: float = math.inf) -> Field:
    """A finite number between two bounds."""
    bounds = f"from {low:g} to {high:g}" if high < math.inf else f">= {low:g}"
    return Field(default, f"a number {bounds}", lambda v: is_number(v) and low <= v <= high)


def choice(*names: str) -> Field:
    """One of some names; the first is the default."""
    return Field(names[0], "one of " + ", ".join(map(repr, names)), lambda v: v in names)


def string(default: str = "", expects: str = "a string") -> Field:
    """Any string."""
    return Field(default, expects, lambda v: isinstance(v, str))


def flag(default: bool) -> Field:
    """True or False."""
    return Field(default, "True or False", lambda v: isinstance(v, bool))


def regex(default: str) -> Field:
    """A regular expression."""
    return Field(default, "a regular expression", _is_regex)


def _is_regex(value: Any) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None
    except re.error:
        return False


def is_crop(value: Any) -> bool:
    """Whether it is () or a range of areas for RandomResizedCrop."""
    if value == ():
        return True
    ok = isinstance(value, tuple) and len(value) == 2 and all(map(is_number, value))
    return ok and 0 < value[0] <= value[1] <= 1


def is_randaugment(value: Any) -> bool:
    """Whether it is () or (operations, magnitude)."""
    if value == ():
        return True
    ok = isinstance(value, tuple) and len(value) == 2 and all(map(is_number, value))
    return ok and isinstance(value[0], int) and 1 <= value[0] <= 16 and 0 <= value[1] <= 10


def is_words(value: Any) -> bool:
    """Whether it is () or (variants, rate)."""
    if value == ():
        return True
    ok = isinstance(value, tuple) and len(value) == 2 and all(map(is_number, value))
    return ok and isinstance(value[0], int) and 1 <= value[0] <= 64 and 0 < value[1] < 1


def is_colour(value: Any) -> bool:
    """Whether it is an RGB triple."""
    ok = isinstance(value, tuple) and len(value) == 3
    return ok and all(isinstance(v, int) and 0 <= v <= 255 for v in value)


def is_specs(value: Any) -> bool:
    """Whether it maps names, which become part of metric names, to pairs."""
    name = re.compile(r"[A-Za-z0-9_.-]+")
    if not isinstance(value, Mapping):
        return False
    texts = all(isinstance(x, str) for item in value.items() for x in item)
    return texts and all(name.fullmatch(k) and v for k, v in value.items())


def is_columns(value: Any) -> bool:
    """Whether it maps what pairs consist of to names of columns."""
    roles = {"image", "captions", "id", "label", "negatives"}
    if not isinstance(value, Mapping) or not set(value) <= roles:
        return False
    named = [[x] if isinstance(x, str) else x for x in value.values()]
    return all(
        isinstance(x, list | tuple) and x and all(isinstance(name, str) and name for name in x)
        for x in named
    )


def is_multipliers(value: Any) -> bool:
    """Whether it lists (regular expression, factor)."""
    ok = isinstance(value, tuple) and all(isinstance(v, tuple) and len(v) == 2 for v in value)
    return ok and all(_is_regex(k) and is_number(m) and m >= 0 for k, m in value)
