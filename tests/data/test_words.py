"""Further captions with words left out."""

import collections

import numpy as np
import pytest

from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.vectors import VectorPairs, VectorTable
from ape_jax.data.words import leave_out_words
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef


def pairs_of(*captions):
    return Pairs.of(
        [Pair(ImageRef(b"", f"{i}.png", 0), texts, str(i)) for i, texts in enumerate(captions)],
        "some.csv",
    )


def is_left_of(short, long):
    words = iter(long.split())
    return all(word in words for word in short.split())


def test_variants_are_the_caption_without_some_words_in_order():
    caption = "a small red boat with two white sails"
    found = leave_out_words(pairs_of((caption,)), 8, 0.3, seed=0)[0].captions
    assert found[0] == caption and len(found) > 4
    assert all(is_left_of(text, caption) for text in found)
    assert len(set(found)) == len(found)


def test_words_are_left_out_at_the_rate():
    captions = tuple(f"w{i} a b c d e f g h i" for i in range(300))
    found = leave_out_words(pairs_of(*((c,) for c in captions)), 1, 0.3, seed=0)
    words = [len(pair.captions[-1].split()) for pair in found]
    assert np.mean(words) == pytest.approx(7, abs=0.2)  # Of 10; the deviation of the mean is 0.08.


def test_the_first_word_is_no_safer_than_others():
    found = leave_out_words(pairs_of(("one two three",)), 500, 0.4, seed=0)[0].captions
    assert set(found) == {
        *("one two three", "one two", "one three", "two three", "one", "two", "three")
    }


def test_one_word_stays_whatever_happens():
    captions = [(f"cat{i} dog{i}",) for i in range(50)]
    found = leave_out_words(pairs_of(*captions), 4, 0.99, seed=0)
    assert all(text for pair in found for text in pair.captions)
    counts = collections.Counter(len(p.captions) for p in found)
    assert counts[3] > 25  # Both words, either alone: the one that stays is drawn.


def test_a_single_word_has_no_variant():
    single = ("boat", "猫の絵")
    found = leave_out_words(pairs_of(single, ("red boat",)), 4, 0.5, seed=0)
    assert found[0].captions == single


def test_captions_without_a_variant_are_one_sentence():
    with pytest.raises(UserError, match=r"config\.augment\.words: no caption of some\.csv"):
        leave_out_words(pairs_of(("boat", "猫の絵")), 4, 0.5, seed=0)


def test_white_space_alone_makes_no_variant():
    found = leave_out_words(pairs_of(("red  boat", "two cats")), 64, 0.1, seed=0)[0].captions
    assert "red boat" not in found


def test_a_caption_that_another_varies_into_is_there_once():
    found = leave_out_words(pairs_of(("red boat", "boat")), 16, 0.5, seed=0)[0].captions
    assert sorted(found) == ["boat", "red", "red boat"]


def test_variants_depend_on_the_caption_and_the_seed_alone():
    one, other = "a red boat at sea", "two cats on a mat"
    both = leave_out_words(pairs_of((one,), (other,)), 4, 0.4, seed=1)
    alone = leave_out_words(pairs_of((other,)), 4, 0.4, seed=1)
    assert both[1].captions == alone[0].captions
    assert leave_out_words(pairs_of((other,)), 4, 0.4, seed=2)[0].captions != alone[0].captions


def test_given_images_stay_with_their_captions():
    image = np.ones((1, 1, 3), np.float32)
    table = VectorTable(
        spec="some.npz",
        vectors=image,
        bounds=np.array([0, 1]),
        names=["0"],
        texts=["a red boat"],
    )
    pairs = VectorPairs(table, None)
    found = leave_out_words(pairs, 4, 0.5, seed=0)
    assert isinstance(found, VectorPairs) and found.image is image
    assert len(found[0].captions) > 1
