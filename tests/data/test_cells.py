"""Captions, ids and lists out of cells: the same rules for every format."""

import ast
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ape_jax.data import cells
from ape_jax.data.cells import Unusable

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=5)


def captions(value):
    """The captions of a cell, and the kinds of what cannot be used."""
    found = [x for x in cells.captions(value) if x is not None]
    return [x.kind if isinstance(x, Unusable) else x for x in found]


@given(TEXTS)
def test_lists_in_python_notation_are_those_of_python(texts):
    assert cells.split_list(repr(texts)) == ast.literal_eval(repr(texts))
    assert cells.split_list(repr((*texts, "x"))) == [*texts, "x"]


@given(TEXTS)
def test_lists_in_json_are_those_of_json(texts):
    written = json.dumps(texts, ensure_ascii=False)
    assert cells.split_list(written) == json.loads(written)


def test_lists_that_pandas_writes_of_arrays_are_split():
    frame = pd.DataFrame({"captions": [np.array(["a cat", "it's a tabby"], object)]})
    cell = pd.read_csv(io.StringIO(frame.to_csv(index=False)))["captions"][0]
    assert captions(cell) == ["a cat", "it's a tabby"]


@pytest.mark.parametrize(
    "text",
    ["[sic] a cat", "a cat [2]", "[1, 2]", "(left) a cat (right)", "['a' + 'b']", "[a, b]", "[]x",
     "['open", "[__import__('os')]", "['a'] and ['b']"],
)  # fmt: skip
def test_captions_with_brackets_stay_captions(text):
    assert captions(text) == [text]


@pytest.mark.parametrize("value", ["nan", "NaN", "None", "null", "NULL", "<NA>", None, math.nan])
def test_missing_values_are_empty_captions(value):
    assert captions(value) == ["empty caption"]
    assert captions([value, "a cat"]) == ["empty caption", "a cat"]


def test_words_that_only_hold_one_are_captions():
    assert captions("None of the cats") == ["None of the cats"] and captions("nan bread")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"\xef\xbb\xbfa cat", ["a cat"]),
        ([{"raw": "a"}, {"caption": "b", "id": 3}], ["a", "b"]),
        (np.array(["a", "b"], object), ["a", "b"]),
        ([" a ", ""], ["a", "empty caption"]),
        (7, ["no text as caption"]),
        ([b"\xff"], ["not UTF-8"]),
        ("\ud800", ["not Unicode"]),
        ([], ["empty caption"]),
    ],
)
def test_captions_of_a_cell(value, found):
    assert captions(value) == found


@pytest.mark.parametrize(
    ("value", "expected"), [(7, "7"), (7.0, "7"), (np.int64(7), "7"), (b"x", "x"), ("", None),
                            (None, None), (math.nan, None), ("nan", None)],
)  # fmt: skip
def test_ids_are_text(value, expected):
    assert cells.identifier(value) == expected


@pytest.mark.parametrize("value", [True, 7.5, [1], {"a": 1}, "\ud800"])
def test_ids_that_are_none(value):
    with pytest.raises(Unusable):
        cells.identifier(value)
