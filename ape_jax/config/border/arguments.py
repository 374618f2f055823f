"""Arguments of a recipe, `image=TOWER,pairs=FILE,runlocal`, cut at the commas that part them.

A comma parts arguments where a name and `=`, or a switch of the recipe, follows. Any other comma
belongs to the value before it: `pairs=features:A.npy,B.npy`, `pairs=photos,2024.csv`. So do commas
in braces and brackets, `{a,b}.tar`, and in quotes: `pairs='a,runlocal.csv'`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ape_jax.config import synonyms
from ape_jax.errors import UserError

_CLOSING = {"{": "}", "[": "]", "(": ")"}
_NAMED = re.compile(r"\s*([A-Za-z_][\w.-]*)=")
# What a recipe calls the keys that most of them set.
_SHORT = {
    "image.tower": "image",
    "text.tower": "text",
    "data.pairs": "pairs",
    "data.eval": "eval",
    "train.batch": "batch",
    "train.steps": "steps",
    "cache.views": "views",
}


class UnknownArgument(UserError):
    """An argument that a recipe does not take.

    Attributes:
      name: of the argument.
      known: names of those that it takes.
    """

    def __init__(
        self,
        name: str,
        known: Sequence[str],
        keys: Collection[str] = (),
        value: str = "VALUE",
    ):
        """Finds what was meant.

        Args:
          name: of the argument.
          known: names of those that the recipe takes.
          keys: those of the config, which the user may have meant.
          value: what was written after `=`.
        """
        self.name, self.known = name, tuple(known)
        key = name if name in keys else synonyms.key_of(name, keys)
        said = synonyms.sentence_of(name)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        if key and _SHORT.get(key) in known:
            hint = f"did you mean {_SHORT[key]!r}?"
        elif key:
            hint = f"write --config.{key}={value} beside it"
        elif said or close:
            hint = said or f"did you mean {close[0]!r}?"
        else:
            hint = f"it takes {', '.join(known)}; quote a value that holds commas, 'a,b=c.csv'"
        super().__init__(f"--config: the recipe takes no argument {name!r}; {hint}")


def split(text: str, defaults: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values; a switch has the value "True".

    >>> split("pairs=features:A.npy,B.npy,runlocal", {"pairs": "", "runlocal": False})
    [('pairs', 'features:A.npy,B.npy'), ('runlocal', 'True')]

    Args:
      text: the part after the colon of `--config RECIPE:`.
      defaults: the arguments that the recipe takes, with their defaults.

    Raises:
      UserError: for a word that is neither a switch nor part of a value.
    """
    found: list[tuple[str, str]] = []
    for item in filter(None, _pieces(text)):
        named = _NAMED.match(item)
        if named:
            found.append((named[1], item[named.end() :]))
        elif item in defaults and (isinstance(defaults[item], bool) or not found):
            found.append((item, "True"))
        elif found and _goes_on(found[-1][0], item, defaults):
            name, value = found[-1]
            found[-1] = (name, f"{value},{item}")
        else:
            raise UnknownArgument(item, tuple(defaults))
    return [(name, _unquoted(value)) for name, value in found]


def _goes_on(name: str, item: str, defaults: Mapping[str, Any]) -> bool:
    """Whether an item without a name belongs to the value before it."""
    if not isinstance(defaults.get(name, ""), str):
        return False
    switches = [key for key, value in defaults.items() if isinstance(value, bool)]
    return not difflib.get_close_matches(item, switches, n=1, cutoff=0.8)


def _pieces(text: str) -> list[str]:
    """Cuts at commas outside of quoted values, braces and brackets that close."""
    pieces, start, place = [], 0, 0
    while place < len(text):
        place = _after(text, place)
        if place < len(text) and text[place] == ",":
            pieces.append(text[start:place])
            start = place = place + 1
    return [*pieces, text[start:]]


def _after(text: str, place: int) -> int:
    """The next comma from here that could part arguments, or the end."""
    while place < len(text) and text[place] != ",":
        opened = text[place]
        if opened in "'\"" and text[place - 1 : place] == "=":
            closed = text.find(opened, place + 1)
            place = closed + 1 if text[closed + 1 : closed + 2] in ("", ",") else place + 1
        elif opened in _CLOSING:
            closed = text.find(_CLOSING[opened], place)
            place = max(closed, place) + 1
        else:
            place += 1
    return place


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value
