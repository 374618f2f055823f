"""Scripts of whole blocks against Unicode's names, letter by letter."""

import collections
import random
import unicodedata

import pyarrow as pa
import pytest

from ape_jax.data.overview.scripts import NO_LETTERS, Scripts, script

LETTERS = "aāzЖшねカ漢고قطя 7!,é🐈\u0301ß"


def by_hand(text):
    names = {"cjk": "Han (kanji, hanzi)", "hiragana": "Japanese kana", "katakana": "Japanese kana"}
    counts = collections.Counter()
    for letter in text:
        if letter.isalpha():
            first = unicodedata.name(letter).split()[0].partition("-")[0].lower()
            counts[names.get(first, first.capitalize())] += 1
    most = max(counts.values(), default=0)
    return {name for name, count in counts.items() if count == most} or {NO_LETTERS}


def test_a_block_has_the_scripts_of_its_letters():
    draw = random.Random(0)
    texts = ["".join(draw.choices(LETTERS, k=draw.randrange(12))) for _ in range(2000)]
    scripts = Scripts()
    for block in (texts[:700], texts[700:]):
        for text, number in zip(block, scripts.of(pa.array(block))):
            assert scripts.names[number] in by_hand(text)


def test_slices_of_arrays_are_their_own_texts():
    scripts = Scripts()
    texts = pa.array(["кот", "a", "猫", "", "7"]).slice(1, 3)
    scripts.add(texts)
    scripts.add(pa.array([], pa.string()))
    assert scripts.counts == {"Latin": 1, "Han (kanji, hanzi)": 1, NO_LETTERS: 1}


@pytest.mark.parametrize(("text", "name"), [("a cat", "Latin"), ("кошка 7", "Cyrillic")])
def test_one_text(text, name):
    assert script(text) == name
