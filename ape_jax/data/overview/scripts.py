"""Scripts that captions are written in, counted by Unicode's names of their letters.

Languages are not recognised: Latvian and English are both Latin.
"""

from __future__ import annotations

import collections
import functools
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

if TYPE_CHECKING:
    import pyarrow as pa

NO_LETTERS = "no letters"
# Scripts that one language mixes are one.
_MERGED = {"hiragana": "Japanese kana", "katakana": "Japanese kana", "cjk": "Han (kanji, hanzi)"}
_NEW = 255  # A character that was not looked up yet.


class Scripts:
    """Finds the script of most letters of each text; remembers the characters that it has met.

    Attributes:
      names: of the scripts met so far, by number; number 0 is `NO_LETTERS`.
    """

    def __init__(self) -> None:
        self.names = [NO_LETTERS]
        self._total: collections.Counter[int] = collections.Counter()
        self._of = np.full(0x110000, _NEW, np.uint8)

    def add(self, texts: pa.Array) -> None:
        """Counts a block of texts: string [n], without nulls."""
        counts = np.bincount(self.of(texts), minlength=1).tolist()
        self._total.update({number: count for number, count in enumerate(counts) if count})

    @property
    def counts(self) -> dict[str, int]:
        """Number of texts by script, of all blocks, the most frequent first."""
        return {self.names[number]: count for number, count in self._total.most_common()}

    def of(self, texts: pa.Array) -> Int[np.ndarray, " n"]:
        """Numbers of the scripts of a block of texts.

        Args:
          texts: string [n], without nulls.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = texts.cast(pa.large_string())
        found = np.zeros(len(texts), np.int64)
        latin = pc.MatchSubstringOptions("[A-Za-z]")
        plain = np.asarray(pc.call_function("string_is_ascii", [texts]))
        letters = np.asarray(pc.call_function("match_substring_regex", [texts], latin))
        if (plain & letters).any():
            found[plain & letters] = self._number("Latin")
        others = np.flatnonzero(~plain)
        if len(others):
            found[others] = self._most(texts.take(pa.array(others)))
        return found

    def _most(self, texts: pa.Array) -> Int[np.ndarray, " n"]:
        import pyarrow.compute as pc

        lengths = np.asarray(pc.call_function("utf8_length", [texts]))
        codes = np.frombuffer(str(raw_bytes(texts), "utf-8").encode("utf-32-le"), "<u4")
        kinds = self._kinds(codes)
        rows = np.repeat(np.arange(len(texts)), lengths)
        size = len(self.names)
        counts = np.bincount(rows * size + kinds, minlength=len(texts) * size)
        counts = counts.reshape(len(texts), size)
        counts[:, 0] = 0  # Spaces and marks count only where nothing else does.
        # Of scripts with as many letters the first by name, whatever was met before.
        order = np.concatenate([[0], 1 + np.argsort(self.names[1:], kind="stable")])
        return order[counts[:, order].argmax(axis=1)]

    def _kinds(self, codes: np.ndarray) -> UInt8[np.ndarray, " c"]:
        kinds = self._of[codes]
        for code in np.unique(codes[kinds == _NEW]).tolist():
            self._of[code] = self._number(_script_of(chr(code)))
        return self._of[codes]

    def _number(self, name: str) -> int:
        if name not in self.names:
            if len(self.names) == _NEW:  # Unicode has fewer scripts than that.
                return 0
            self.names.append(name)
        return self.names.index(name)


def script(text: str) -> str:
    """The script of most letters of a text, as Unicode names it.

    Example:
      >>> script("a cat"), script("кошка 7"), script("123")
      ('Latin', 'Cyrillic', 'no letters')
    """
    import pyarrow as pa

    scripts = _met()
    return scripts.names[int(scripts.of(pa.array([text], pa.large_string()))[0])]


@functools.cache
def _met() -> Scripts:
    return Scripts()


def raw_bytes(texts: pa.LargeStringArray) -> memoryview:
    """The UTF-8 of all texts of an array, one after another; nothing is copied."""
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset :][: len(texts) + 1]
    return memoryview(texts.buffers()[2] or b"")[offsets[0] : offsets[-1]]


def _script_of(letter: str) -> str:
    if not letter.isalpha() or not (name := unicodedata.name(letter, "")):
        return NO_LETTERS
    first = name.split()[0].partition("-")[0].lower()
    return _MERGED.get(first, first.capitalize())
