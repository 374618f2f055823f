"""Tuning modes by name: what `image.tune` and `text.tune` may say, and what each of them means."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Literal

PARTS = ("layernorm", "bitfit", "adapter", "append", "lora")
EXPECTS = "'frozen', 'full', 'top:K' or a '+'-joined set of " + ", ".join(map(repr, PARTS))

Frontier = Literal["output", "hidden", "input"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tune:
    """One tuning mode.

    Attributes:
      full: everything is trained.
      top: so many of the upper blocks, and what follows them, are trained; 0 in other modes.
      parts: what is trained or added, out of `PARTS`; empty in other modes.
    """

    full: bool = False
    top: int = 0
    parts: frozenset[str] = frozenset()

    @property
    def frontier(self) -> Frontier:
        """The deepest activation that depends on no trained parameter.

        The output of a frozen tower; the hidden state under the first trained block; the raw input
        where something at the bottom is trained. (Then the embeddings are often frozen all the
        same, but as large as the input or larger: encoding them once would gain nothing, and
        differentiation stops above them by itself.)
        """
        if not (self.full or self.top or self.parts):
            return "output"
        return "hidden" if self.top or self.parts == {"append"} else "input"


@functools.lru_cache
def parse(text: str) -> Tune:
    """The mode that a text names.

    Example:
      >>> parse("adapter+layernorm").parts == {"adapter", "layernorm"}
      True
      >>> parse("top:2").frontier
      'hidden'

    Raises:
      ValueError: for a text that names none.
    """
    if text in ("frozen", "full"):
        return Tune(full=text == "full")
    if match := re.fullmatch(r"top:([1-9]\d{0,3})", text):
        return Tune(top=int(match[1]))
    parts = text.split("+")
    if not set(parts) <= set(PARTS) or len(set(parts)) < len(parts):
        raise ValueError(f"expected {EXPECTS}, found {text!r}")
    return Tune(parts=frozenset(parts))


def is_tune(value: object) -> bool:
    """Whether it is the name of a mode."""
    try:
        return isinstance(value, str) and parse(value) is not None
    except ValueError:
        return False
