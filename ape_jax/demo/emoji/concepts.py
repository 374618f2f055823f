"""Groups emoji into concepts, and assigns concepts to splits.

Two emoji are the same concept when, in any of the 14 languages,

1. a series of `SERIES` holds both English names (clock faces, moons, keycaps, zodiac, ...), or
2. they share a name or an alias, or
3. their names are equal without genders, colours, sizes and sides (`languages.normal_form`), or
4. the names (or normal forms) are at least six characters long and one edit apart.

The relation is closed (union-find). A concept's key is its series, else the shortest English normal
form among its emoji. Its split is a hash of that key and of nothing else: with
u = first 8 bytes of sha256("ape_jax emoji " + key) / 2^64, u < 0.7 is train, u < 0.8 validation,
and the rest test. Another version of the emoji data thus moves no concept it does not rename.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

from ape_jax.demo.emoji import languages

SPLITS: tuple[str, ...] = ("train", "validation", "test")
_BOUNDS = (0.7, 0.8, 1.0)
_EDIT_LENGTH = 6

_SIDE = r"(left|right|up|down|up left|up right|down left|down right|left right|up down)"
_ADULT = r"(man|woman|person|boy|girl|child|baby|adult|old man|old woman|older person)"
# English names, lower-cased, words only. First match wins.
SERIES: tuple[tuple[str, str], ...] = (
    ("clock", r"\w+ (o clock|oclock|thirty)"),
    ("moon", r"(new|full|first quarter|last quarter|crescent|wax.*|waning.*) moon( face)?"),
    ("keycap", r"keycap.*"),
    (
        "zodiac",
        "aquarius|aries|cancer|capricorn|gemini|leo|libra|ophiuchus|pisces|sagittarius|scorpio"
        "|taurus|virgo",
    ),
    (
        "lettered button",
        r"(a|ab|b|o|p|cl|cool|free|id|new|ng|ok|sos|up|vs) button.*|circled m"
        r"|(back|end|on|soon|top) arrow",
    ),
    ("japanese button", r"japanese.* button"),
    ("input", r"input .*"),
    ("arrow", rf"{_SIDE} arrow( curving \w+)?|(counter)?clockwise .*arrows.*"),
    (
        "player button",
        r"(play|pause|play or pause|stop|record|eject|reverse|fast .*|next track|last track"
        r"|upwards|downwards|repeat|repeat single|shuffle tracks) button",
    ),
    ("screen button", r"(dim|bright) button"),
    ("sign of arithmetic", r"plus|minus|divide|multiply|heavy equals sign"),
    ("medal", r"\w+ place medal"),
    ("globe", r"globe .*"),
    ("family", r"family.*"),
    ("couple", r"couple with heart.*|kiss( \w+ \w+)?|(\w+ and )?\w+ holding hands"),
    ("person", rf"{_ADULT}( (bald|beard|(blond|curly|red|white) hair))?"),
    ("royalty", r"prince|princess|person with crown"),
    ("claus", r"(mrs|mx|santa) claus"),
    ("merperson", r"mer(person|man|maid)"),
    ("card suit", r"\w+ suit"),
    ("mailbox", r"(open|closed) mailbox .*"),
    ("speaker", r"speaker \w+ volume|muted speaker"),
    ("banknote", r"\w+ banknote"),
    ("fist", r"((left|right) facing|oncoming|raised) fist"),
    (
        "open hand",
        r"(raised|waving|(left|right)wards|palm (up|down)) hand|\w+ pushing hand"
        r"|raised back of hand|hand with fingers splayed",
    ),
    ("pointing", r".*index pointing.*"),
    ("thumbs", r"thumbs \w+"),
    ("three monkeys", r"\w+ no evil monkey"),
    ("magnifying glass", r"magnifying glass .*"),
    ("triangle", r".*triangle pointed.*"),
    ("sun behind cloud", r"sun behind.*"),
    ("cloud", r"cloud( with.*)?"),
    ("hourglass", r"hourglass.*"),
    ("chart", r"(bar )?chart.*"),
    ("check", r"check (mark|box).*"),
    ("lock", r"(un)?locked.*"),
    ("gender sign", r"(male|female) sign|transgender symbol"),
    ("restroom", r"(wo)?men s room|restroom"),
    ("square", r".*square( button)?"),
    ("circle", r".* circle"),
    ("diamond", r"(small|large) \w+ diamond"),
    ("book", r"(\w+ )?books?"),
    ("flag", r"(black|white|rainbow|transgender|pirate|triangular|chequered|crossed) flags?"),
    ("wheelchair", r".*wheelchair.*"),
    ("tray", r"(in|out)box tray"),
    ("pair of hearts", r"(two|revolving) hearts"),
    ("face with horns", r"(smiling|angry) face with horns"),
    ("face with hand over mouth", r"face with .*hand over mouth"),
    ("plain face", r"slightly (smiling|frowning) face|(smiling|frowning) face( with open mouth)?"),
)
_SERIES = tuple((key, re.compile(pattern)) for key, pattern in SERIES)

Captions = Mapping[str, Sequence[str]]


def group(emoji: Mapping[str, Captions]) -> dict[str, str]:
    """Returns the concept key of every emoji.

    Args:
      emoji: id -> language -> names and aliases; "en" must hold at least the name.
    """
    union = _Union(emoji)
    for signs in _signatures(emoji):
        seen: dict[Hashable, str] = {}
        for sign, one in signs:
            union.join(one, seen.setdefault(sign, one))
    members: dict[str, list[str]] = {}
    for one in emoji:
        members.setdefault(union.root(one), []).append(one)
    concept: dict[str, str] = {}
    for ids in members.values():
        key = _key([emoji[one]["en"][0] for one in ids])
        concept.update(dict.fromkeys(ids, key))
    return concept


def split_of(concept: str) -> str:
    """Returns `train`, `validation` or `test` for a concept key; see the module's docstring."""
    head = hashlib.sha256(f"ape_jax emoji {concept}".encode()).digest()[:8]
    u = int.from_bytes(head, "big") / 2**64
    return next(split for split, bound in zip(SPLITS, _BOUNDS) if u < bound)


def representative(names: Mapping[str, str]) -> str:
    """Returns the id that stands for a concept in evaluation: id -> English name.

    The plainest name: none of its words a gender if possible, then the fewest words and letters.
    """

    def plainness(one: str) -> tuple[bool, int, int, str]:
        words = languages.tokens(names[one])
        return (not _GENDER.isdisjoint(words), len(words), len(names[one]), one)

    return min(names, key=plainness)


_GENDER = frozenset({"man", "woman", "men", "women", "boy", "girl", "mrs"})


def series_of(name: str) -> str | None:
    """Returns the series that an English name belongs to, or None."""
    words = " ".join(languages.tokens(name))
    return next((key for key, pattern in _SERIES if pattern.fullmatch(words)), None)


def deletions(text: str) -> set[str]:
    """Returns the text and every text with one character left out.

    Two texts one edit apart share at least one of these; so do some that are two apart (a character
    moved), which are joined as well.
    """
    return {text} | {text[:i] + text[i + 1 :] for i in range(len(text))}


def _key(names: Sequence[str]) -> str:
    series = sorted({key for name in names if (key := series_of(name))})
    if series:
        return series[0]
    forms = [languages.normal_form(name, "en") or name.casefold() for name in names]
    return min(forms, key=lambda form: (len(form), form))


def _signatures(emoji: Mapping[str, Captions]) -> Iterable[list[tuple[Hashable, str]]]:
    """Yields, for each rule and language, (what equal emoji share, id)."""
    yield [(key, one) for one in emoji if (key := series_of(emoji[one]["en"][0]))]
    for language in languages.LANGUAGES:
        texts = [(text, one) for one in emoji for text in emoji[one].get(language, ())]
        yield [(languages.tokens(text) or text, one) for text, one in texts]
        forms = [(languages.normal_form(text, language), one) for text, one in texts]
        yield [(form, one) for form, one in forms if form]
        plain = [("".join(languages.tokens(text)), one) for text, one in texts]
        for variants in (plain, [(form.replace(" ", ""), one) for form, one in forms]):
            yield [
                (deletion, one)
                for text, one in variants
                if len(text) >= _EDIT_LENGTH
                for deletion in deletions(text)
            ]


class _Union:
    """Disjoint sets of ids (union-find)."""

    def __init__(self, ids: Iterable[str]):
        self._parent = {one: one for one in ids}

    def root(self, one: str) -> str:
        while self._parent[one] != one:
            self._parent[one] = self._parent[self._parent[one]]
            one = self._parent[one]
        return one

    def join(self, one: str, other: str) -> None:
        self._parent[self.root(one)] = self.root(other)
