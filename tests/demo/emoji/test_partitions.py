"""Numbered partitions: nobody has looked at what they test on, and nothing leaks into training."""

import hashlib
import shutil
from collections import Counter

import pytest

from ape_jax.data.specs import open_pairs
from ape_jax.demo.emoji import pairs as emoji
from ape_jax.demo.emoji import partitions
from ape_jax.demo.emoji.concepts import SPLITS, split_of
from ape_jax.errors import UserError

NUMBERS = (1, 2, 3)


@pytest.fixture(scope="module")
def plain():
    return {split: emoji.read_pairs("twemoji", "en", split) for split in SPLITS}


@pytest.fixture(scope="module")
def numbered():
    return {
        (number, split): emoji.read_pairs("twemoji", "en", f"{split}@{number}")
        for number in NUMBERS
        for split in SPLITS
    }


def concepts(rows):
    return {concept for _, _, _, concept in rows}


def test_no_test_holds_a_concept_that_choices_have_looked_at(plain, numbered):
    seen = concepts(plain["test"]) | concepts(plain["validation"])
    for number in NUMBERS:
        seen |= concepts(numbered[number, "validation"])
    for number in NUMBERS:
        assert not concepts(numbered[number, "test"]) & seen


def test_sides_are_apart_and_hold_every_concept(plain, numbered):
    every = set.union(*map(concepts, plain.values()))
    for number in NUMBERS:
        sides = [concepts(numbered[number, split]) for split in SPLITS]
        assert set.union(*sides) == every and sum(map(len, sides)) == len(every)


def test_sizes_are_about_those_of_the_plain_splits(plain, numbered):
    for (_, split), rows in numbered.items():
        assert 0.85 < len(rows) / len(plain[split]) < 1.2


def test_tests_hold_one_emoji_a_concept_and_training_every_variant(plain, numbered):
    for number in NUMBERS:
        for split in ("validation", "test"):
            assert max(Counter(c for *_, c in numbered[number, split]).values()) == 1
    old_tests = concepts(plain["test"]) & concepts(numbered[1, "train"])
    in_training = Counter(c for *_, c in numbered[1, "train"])
    assert max(in_training[c] for c in old_tests) > 5  # The plain splits hold one of them.


def test_representatives_are_chosen_as_in_the_plain_splits(plain, numbered):
    of = {c: one for *_, one, c in plain["validation"]}
    again = [(of[c], one) for *_, one, c in numbered[2, "validation"] if c in of]
    assert again and all(old == new for old, new in again)


def test_partitions_differ_and_all_styles_agree(numbered):
    assert concepts(numbered[1, "test"]) != concepts(numbered[2, "test"])
    for style in ("openmoji", "noto") if shutil.which("npm") else ("openmoji",):
        other = emoji.read_pairs(style, "en", "test@1")
        assert [pair[1:] for pair in other] == [pair[1:] for pair in numbered[1, "test"]]


def test_a_slice_is_a_sample_and_slices_make_the_whole():
    whole = {p.id for p in open_pairs("demo:twemoji:train@1")}
    halves = [{p.id for p in open_pairs(f"demo:twemoji:train@1{s}")} for s in ("[:50%]", "[50%:]")]
    assert halves[0] | halves[1] == whole and not halves[0] & halves[1]
    some = [p.id for p in open_pairs("demo:twemoji/de:train@1[:40]")]
    assert len(some) == 40 and some == sorted(some) and set(some) <= halves[0]


@pytest.mark.parametrize("wrong", ["[:99999]", "[x]", "[5:5]"])
def test_wrong_slices_are_one_sentence(wrong):
    with pytest.raises(UserError, match=r"data.pairs: .*train@1 has \d+ images and no slice"):
        open_pairs(f"demo:twemoji:train@1{wrong}")


@pytest.mark.parametrize("wrong", ["dev@1", "train@0", "train@1000", "train@", "train@1x"])
def test_unknown_partitions_are_one_sentence(wrong):
    with pytest.raises(UserError, match=r"the split '.*' is unknown; write one of train, .*test@1"):
        open_pairs(f"demo:twemoji:{wrong}")


def test_the_side_of_a_concept_is_that_of_the_published_formula():
    def u(text):
        return int(hashlib.sha256(f"ape_jax emoji partition {text}".encode()).hexdigest()[:16], 16)

    for concept in ("cat", "grinning", "rocket", "clock", "airplane", "key"):
        reserved = split_of(concept) == "train" and u(f"reserve {concept}") < 2**63
        assert partitions.is_reserved(concept) == reserved
        side = "test" if reserved else "validation"
        share = 0.55 if reserved else 0.15
        expected = side if u(f"{side} {concept} 7") / 2**64 < share else "train"
        assert partitions.side_of(concept, 7) == expected


def test_two_styles_are_one_training_set():
    pairs = open_pairs("demo:twemoji:train@1::demo:openmoji:train@1")
    assert len(pairs) == 2 * len(open_pairs("demo:twemoji:train@1"))
