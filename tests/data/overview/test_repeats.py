"""Captions and images that occur several times, against pandas and by hand."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ape_jax.data.overview.repeats import CaptionRepeats, repeated_images, text_hashes
from ape_jax.images.decode import ImageRef


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    images = np.sort(rng.integers(0, 400, 1500))
    texts = [f"caption {'é' * (i % 3)}{i}" for i in rng.integers(0, 700, 1500)]
    return pd.DataFrame({"image": images, "text": texts})


@pytest.mark.parametrize("block", [1500, 64])
def test_captions_of_several_images_are_those_of_pandas(table, block):
    found = CaptionRepeats()
    for start in range(0, len(table), block):
        part = table.iloc[start : start + block]
        found.add(pa.array(part.text.tolist()), part.image.to_numpy())
    result = found.result()
    images = table.groupby("text").image.nunique()
    several = images[images > 1]
    assert result.things == len(several)
    assert result.images == table[table.text.isin(several.index)].image.nunique()
    assert [some.images for some in result.most] == several.sort_values()[::-1][:10].tolist()
    for some in result.most:
        texts = [set(table[table.image == row].text) for row in some.rows]
        assert any(images[text] == some.images for text in set.intersection(*texts))


def test_the_same_caption_twice_for_one_image_is_no_repeat():
    found = CaptionRepeats()
    found.add(pa.array(["a", "a", "b"]), np.array([0, 0, 1]))
    assert found.result().things == 0 and CaptionRepeats().result().most == []


def test_hashes_tell_texts_apart_and_do_not_depend_on_the_block():
    texts = [
        "",
        "a",
        "aa",
        "ab",
        "ba",
        "a" * 40_000,
        "a" * 40_001,
        "b" + "a" * 39_999,
        "\0",
        "\0\0",
    ]
    whole = text_hashes(pa.array(texts))
    assert len(set(whole.tolist())) == len(texts)
    assert whole[3:8].tolist() == text_hashes(pa.array(texts).slice(3, 5)).tolist()
    longer = "a" * 16_384  # Its bytes lie at places that are counted anew.
    pair = text_hashes(pa.array([longer + "b" + longer, longer + longer + "b"]))
    assert pair[0] != pair[1]


def test_images_of_equal_bytes_are_found_up_to_a_bound(tmp_path):
    contents = [b"one", b"two", b"one", b"three", b"two", b"one"]
    for i, content in enumerate(contents):
        (tmp_path / f"{i}").write_bytes(content)
    refs = [ImageRef(str(tmp_path / f"{i}"), f"{i}") for i in range(len(contents))]
    refs.insert(1, ImageRef(str(tmp_path / "missing"), "missing"))
    every = repeated_images(len(refs), refs.__getitem__, limit=100, most_bytes=10**6)
    assert (every.things, every.images, every.looked_at) == (2, 5, 7)
    assert [(some.images, some.rows) for some in every.most] == [(3, (0, 3, 6)), (2, (2, 5))]
    few = repeated_images(len(refs), refs.__getitem__, limit=4, most_bytes=10**6)
    assert (few.things, few.images, few.looked_at) == (1, 2, 4)
    small = repeated_images(len(refs), refs.__getitem__, limit=100, most_bytes=9)
    assert (small.images, small.looked_at) == (2, 5)
