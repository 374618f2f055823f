"""Captions by script and length."""

import numpy as np
import pytest

from ape_jax.data.pairs import Pair, Pairs
from ape_jax.images.decode import ImageRef
from ape_jax.pages import slices
from ape_jax.pages.queries import Searched


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("zaķis", "Latin"),
        ("кошка и cat", "Cyrillic"),
        ("猫", "Han (kanji, hanzi)"),
        ("ねこ", "Japanese kana"),
        ("고양이", "Hangul"),
        ("قطة", "Arabic"),
        ("🐈 12", "no letters"),
    ],
)
def test_scripts_are_unicodes(text, script):
    assert slices.script(text) == script


def searched(captions, ranks):
    pairs = Pairs.of([Pair(ImageRef("a.png", "a"), (c,), c) for c in captions])
    count = len(captions)
    return Searched(
        pairs=pairs,
        captions=list(captions),
        image_index=np.arange(count),
        cosines=np.eye(count, dtype=np.float32),
        caption_ranks=np.asarray(ranks),
        image_ranks=np.ones(count, int),
    )


def test_each_slice_has_its_own_figure():
    table = slices.slices(searched(["cat", "dog", "кот", "пёс"], [1, 30, 5, 7]))
    assert "<td>Latin (few)</td><td>2</td><td>50</td>" in table
    assert "<td>Cyrillic (few)</td><td>2</td><td>100</td>" in table and "<td>6</td>" in table


def test_captions_of_one_kind_have_no_table():
    assert slices.slices(searched(["cat", "dog"], [1, 30])) == ""
