"""The languages of captions: from a column or by script, and how often each caption comes."""

import collections
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ape_jax import config as config_lib
from ape_jax.data.languages import spoken
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.data.table.texts import Captions, Spoken
from ape_jax.data.words import leave_out_words
from ape_jax.errors import UserError
from ape_jax.features.dataset import Dataset, captions_of

ROWS = [
    {"image": "a.png", "caption": "a cat", "lang": "en"},
    {"image": "b.png", "caption": "a pizza", "lang": "en"},
    {"image": "a.png", "caption": "кошка", "lang": "ru"},
    {"image": "b.png", "caption": "a pizza", "lang": "it"},
    {"image": "a.png", "caption": "a cat", "lang": "en"},
    {"image": "a.png", "caption": "the cat", "lang": "en"},
]
WANTED = [
    (("a cat", "кошка", "the cat"), ("en", "ru", "en")),
    (("a pizza", "a pizza"), ("en", "it")),
]
BY_LANG = Reading(columns={"language": ("lang",)})


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate("ab"):
        Image.new("RGB", (4, 4), (60 * i, 0, 0)).save(tmp_path / f"{name}.png")
    return tmp_path


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.csv", "pairs.parquet"])
def test_a_column_says_the_language_of_each_caption(folder, name):
    pairs = open_pairs(write(folder / name, ROWS), key="pairs", reading=BY_LANG)
    assert [(pair.captions, pair.languages) for pair in pairs] == WANTED
    found = captions_of(pairs, language="lang")
    assert [found.spoken.names[i] for i in found.spoken.index] == ["en", "ru", "en", "en", "it"]
    assert list(found.texts) == ["a cat", "кошка", "the cat", "a pizza"]
    plain = open_pairs(str(folder / name))
    assert [pair.languages for pair in plain] == [(), ()] and plain.num_captions == 4


def test_a_row_has_one_language_or_one_of_each_caption(folder):
    rows = [
        {"image": "a.png", "captions": ["a cat", "the cat"], "lang": "en"},
        {"image": "b.png", "captions": ["a pizza", "la pizza"], "lang": ["en", "it"]},
    ]
    pairs = open_pairs(write(folder / "p.jsonl", rows), key="pairs", reading=BY_LANG)
    assert [pair.languages for pair in pairs] == [("en", "en"), ("en", "it")]
    for bad, said in ((["en"] * 3, "3 names for 2 captions"), (None, "null or empty")):
        spec = write(folder / "bad.jsonl", [rows[0], {**rows[1], "lang": bad}])
        with pytest.raises(UserError, match=rf"bad\.jsonl:2.*'lang' is {said}"):
            open_pairs(spec, key="pairs", reading=BY_LANG)


def test_a_caption_that_is_left_out_takes_its_own_language_with_it(folder):
    rows = [
        {"image": "a.png", "captions": ["", "ein Kater", "the cat"], "lang": ["fr", "de", "en"]},
        {"image": "b.png", "captions": ["a pizza"], "lang": "en"},
    ]
    skipping = Reading(columns={"language": ("lang",)}, on_error="skip", max_skipped=1.0)
    pairs = open_pairs(write(folder / "p.jsonl", rows), key="pairs", reading=skipping)
    assert (pairs[0].captions, pairs[0].languages) == (("ein Kater", "the cat"), ("de", "en"))
    assert pairs.problems.counts() == {"empty caption": 1}


@pytest.mark.parametrize("null", [None, "", "nan"])
def test_a_caption_without_a_language_does_not_take_that_of_the_others(folder, null):
    row = {"image": "a.png", "captions": ["a cat", "ein Kater"], "lang": ["en", null]}
    with pytest.raises(UserError, match="'lang' is null or empty for one of the captions; write"):
        open_pairs(write(folder / "p.jsonl", [row]), key="pairs", reading=BY_LANG)


def test_a_column_that_is_not_there_is_an_error_that_names_the_others(folder):
    data = config_lib.resolve(
        {"image.tower": "x", "text.tower": "x", "data.pairs": "p", "data.language": "tongue"}
    ).data
    with pytest.raises(
        UserError,
        match=r"no column 'tongue', which data\.language names; found 'image', 'caption', 'lang'",
    ):
        open_pairs(write(folder / "p.csv", ROWS), key="data.pairs", reading=Reading.of(data))


def test_languages_count_in_the_digest_and_pairs_without_have_the_one_they_had(folder):
    spec = write(folder / "p.jsonl", ROWS)
    plain = [{k: v for k, v in row.items() if k != "lang"} for row in ROWS]
    digest = open_pairs(spec).digest
    assert open_pairs(write(folder / "plain.jsonl", plain)).digest == digest
    assert open_pairs(spec, reading=BY_LANG).digest != digest


def test_scripts_stand_for_languages_where_no_column_does(folder):
    pairs = open_pairs(write(folder / "p.jsonl", ROWS))
    found = captions_of(pairs, language="auto").spoken
    assert [found.names[i] for i in found.index] == ["Latin", "Cyrillic", "Latin", "Latin"]
    assert spoken.scripts_of(["7", "ネコ"]) == ["no letters", "Japanese kana"]


def test_left_out_words_are_of_the_language_of_their_caption(folder):
    image = open_pairs(write(folder / "p.jsonl", ROWS))[0].image
    pair = Pair(image, ("a b c d", "x y"), "1", languages=("en", "it"))
    made = leave_out_words(Pairs.of([pair]), 3, 0.5, 0)[0]
    of = dict(zip(made.captions, made.languages, strict=True))
    assert len(of) > 2 and {of[c] for c in made.captions if set(c) & set("xy")} == {"it"}
    assert {of[c] for c in made.captions if set(c) & set("abcd")} == {"en"}


def test_a_sample_of_the_records_keeps_the_languages_of_their_captions(folder):
    rows = [{**row, "image": "ab"[i % 2] + ".png"} for i, row in enumerate(ROWS)]
    pairs = open_pairs(write(folder / "p.jsonl", rows), key="pairs", reading=BY_LANG)
    few = Dataset(pairs, captions_of(pairs, language="lang"), None, None).sample(1, seed=3)
    found = few.captions
    named = [(found.texts[i], found.spoken.names[j]) for i, j in
             zip(found.text_index, found.spoken.index, strict=True)]  # fmt: skip
    assert named == list(zip(few.pairs[0].captions, few.pairs[0].languages, strict=True))


def test_an_image_draws_a_language_and_then_a_caption_of_it():
    captions = Captions(
        texts=list("vwxyz"),
        text_index=np.arange(5),
        offsets=np.array([0, 3, 5]),
        spoken=Spoken(("de", "en"), np.array([1, 0, 1, 1, 1])),
    )
    np.testing.assert_allclose(spoken.balanced(captions), [1 / 4, 1 / 2, 1 / 4, 1 / 2, 1 / 2])
    plain = Captions(captions.texts, captions.text_index, captions.offsets)
    np.testing.assert_allclose(spoken.balanced(plain), [1 / 3] * 3 + [1 / 2] * 2)


def test_the_emoji_come_in_several_languages_at_once():
    reading = Reading(columns={"language": ("language",)})
    pairs = open_pairs("demo:twemoji/en+ja+it:test@1", key="pairs", reading=reading)
    counts = collections.Counter(name for pair in pairs for name in pair.languages)
    assert set(counts) == {"en", "ja", "it"} and counts["ja"] == counts["it"] == len(pairs)
    one = open_pairs("demo:twemoji/it:test@1")
    italian = [
        tuple(text for text, of in zip(pair.captions, pair.languages, strict=True) if of == "it")
        for pair in pairs
    ]
    assert italian == [pair.captions for pair in one]
    with pytest.raises(UserError, match="the language 'all' is unknown"):
        open_pairs("demo:twemoji/en+all:test@1")
