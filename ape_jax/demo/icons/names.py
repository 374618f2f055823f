"""Turns icons' names into captions: `account-heart-outline-24` becomes "account heart".

What is stripped, again and again from the end of a name, until nothing is:

1. the set's own prefixes and suffixes, where its metadata lists them;
2. `STYLE_WORDS`, which say how and not what, and sizes in pixels;
3. `WEAK_WORDS`, which may say either ("traffic light", "assembly line"), where the set uses one
   as a style: on 8 % of its names, or on 0.4 % of them of which half exist in another style too;
4. numbers ("headphones 3"), which number variants. A die's face goes with them; the caption stays
   true.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Collection, Iterable, Sequence

STYLE_WORDS = frozenset(
    "outline outlined filled duotone twotone linear solid rounded alt alternate variant "
    "mirrored rtl ltr regular".split()
)
WEAK_WORDS = frozenset(
    "fill line bold thin light round sharp broken stroke flat remix duo mini micro o f "
    "small large sm md lg xl xs compact badged alerted dark color expressive strong "
    "one two three four five".split()
)
MAX_WORDS = 6

_WORD = re.compile(r"[a-z0-9]+")
_LETTERS = re.compile(r"[a-z].*[a-z]|3d")
_SIZE = re.compile(r"\d+(px)?")
_NUMBERED = re.compile(r"([a-z]{3,})\d{1,2}")  # "headphones3", but "mp3" stays
_CODE = re.compile(r"u[0-9a-f]{4,5}")  # "u1faaa"
_MIN_USES = 8
_SHARE, _SHARE_OF_VARIANTS = 0.08, 0.004


class Cleaner:
    """Turns the names of one set into captions.

    Args:
      names: every name in the set; what is a style is found by looking at all of them.
      prefixes: the set's own, without the hyphen: `("outline", "baseline")`.
      suffixes: likewise: `("24-filled", "duotone")`.
    """

    def __init__(
        self, names: Iterable[str], prefixes: Sequence[str] = (), suffixes: Sequence[str] = ()
    ):
        # The longest first: "16-solid" before "solid".
        self._prefixes = sorted((f"{_usual(p)}-" for p in prefixes if p), key=len, reverse=True)
        self._suffixes = sorted((f"-{_usual(s)}" for s in suffixes if s), key=len, reverse=True)
        self._tails = STYLE_WORDS | style_tails([self._bare(name) for name in names])

    def caption(self, name: str) -> str:
        """Makes the caption of a name, which may be empty."""
        words = [_unnumbered(word) for word in _WORD.findall(self._bare(name))]
        while len(words) > 1 and (words[-1] in self._tails or _SIZE.fullmatch(words[-1])):
            words.pop()
        kept = [word for word, before in zip(words, ["", *words]) if word != before]
        return " ".join(kept)

    def _bare(self, name: str) -> str:
        name = _usual(name)
        for prefix in self._prefixes:
            if name.startswith(prefix):
                name = name[len(prefix) :]
                break
        for suffix in self._suffixes:
            if name.endswith(suffix):
                return name[: -len(suffix)]
        return name


def style_tails(names: Collection[str]) -> frozenset[str]:
    """Finds the weak words that these names use as styles.

    >>> sorted(style_tails([*(f"{x}-fill" for x in "abcdefgh"), "traffic-light", "fishing-line"]))
    ['fill']
    """
    split = [name.rpartition("-") for name in names]
    styled = [(stem, tail) for stem, _, tail in split if stem and _is_style(tail)]
    forms = collections.Counter(stem for stem, _ in styled) + collections.Counter(set(names))
    stems: dict[str, list[str]] = {}
    for stem, tail in styled:
        stems.setdefault(tail, []).append(stem)
    found = set()
    for tail, used in stems.items():
        variants = sum(forms[stem] > 1 for stem in used) >= len(used) / 2
        least = _SHARE_OF_VARIANTS if variants else _SHARE
        if len(used) >= max(_MIN_USES, least * len(names)):
            found.add(tail)
    return frozenset(found & WEAK_WORDS)


def problem(caption: str) -> str | None:
    """Says why a caption is dropped, in words for the statistics; None if it is kept.

    >>> problem("24"), problem("a"), problem("qr"), problem("outline")
    ('names without a word', 'names without a word', None, 'names without a word')
    """
    words = caption.split()
    if len(words) > MAX_WORDS:
        return f"names of more than {MAX_WORDS} words"
    telling = [word for word in words if word not in STYLE_WORDS and not _CODE.fullmatch(word)]
    if not any(_LETTERS.search(word) for word in telling):
        return "names without a word"
    return None


def concept_keys(captions: Iterable[str]) -> dict[str, str]:
    """Maps captions to concepts; captions that differ in order, number or spaces share one.

    "arrow left" and "left arrows" are one concept, and so are "checkbox" and "check box". A key is
    the sorted words of the first caption, in alphabetical order, of those that are alike.
    """
    captions = sorted(set(captions))
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    for caption in captions:
        words = [_singular(word) for word in caption.split()]
        ordered, joined = root(" ".join(sorted(words))), root("=" + "".join(words))
        parent[joined] = ordered
    keys: dict[str, str] = {}
    found: dict[str, str] = {}
    for caption in captions:
        group = root(" ".join(sorted(_singular(word) for word in caption.split())))
        keys[caption] = found.setdefault(group, " ".join(sorted(caption.split())))
    return keys


def _usual(name: str) -> str:
    return name.lower().replace("two-tone", "twotone")


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _unnumbered(word: str) -> str:
    match = _NUMBERED.fullmatch(word)
    return match[1] if match else word


def _is_style(word: str) -> bool:
    return word in STYLE_WORDS or word in WEAK_WORDS or bool(_SIZE.fullmatch(word))
