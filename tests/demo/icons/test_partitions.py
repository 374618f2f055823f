"""Numbered partitions of the icons: other concepts and makers, which no choice has looked at."""

import collections
import io

import numpy as np
import pytest
from PIL import Image

from ape_jax.data.specs import open_pairs
from ape_jax.demo import numbered
from ape_jax.demo.icons import alike, listing, partitions, render
from ape_jax.demo.icons import pairs as icons
from ape_jax.errors import UserError

NUMBERS = (1, 2, 3)


def drawings():
    """6,000 concepts, most of the plain train, by twelve makers of very different sizes."""
    rng = np.random.default_rng(0)
    makers = [f"maker {i}" for i in range(12)]
    share = np.array([2.0**-i for i in range(12)])
    rows = []
    for c in range(6000):
        split = rng.choice(icons.SPLITS, p=(0.92, 0.02, 0.03, 0.03))
        count = rng.integers(1, 4) if split == "train" else 1
        drawn = rng.choice(makers, size=count, replace=False, p=share / share.sum())
        who = ["old maker"] if split == "test_sets" else drawn
        rows += [(f"{m}:{c}", str(split), f"concept {c}", str(m)) for m in who]
    ids, splits, concepts, authors = map(list, zip(*rows))
    return partitions.Drawings(id=ids, split=splits, concept=concepts, maker=authors)


@pytest.fixture(scope="module")
def found():
    return drawings()


@pytest.fixture(scope="module")
def sides(found):
    return {number: np.array(partitions.sides(found, number)) for number in NUMBERS}


def concepts(found, sides, *wanted):
    return {c for c, side in zip(found.concept, sides) if side in wanted}


def test_no_test_holds_a_concept_that_choices_have_looked_at(found, sides):
    seen = {c for c, split in zip(found.concept, found.split) if split != "train"}
    for number in NUMBERS:
        seen |= concepts(found, sides[number], "validation")
    for number in NUMBERS:
        tested = concepts(found, sides[number], "test", "test_sets")
        assert len(tested) > 200 and not tested & seen


def test_sides_share_no_concept_and_tests_hold_each_once(found, sides):
    for number in NUMBERS:
        each = [concepts(found, sides[number], side) for side in icons.SPLITS]
        assert sum(map(len, each)) == len(set.union(*each))
        for side in icons.SPLITS[1:]:
            rows = collections.Counter(np.array(found.concept)[sides[number] == side])
            assert rows and max(rows.values()) == 1


def test_held_out_makers_are_in_test_sets_alone(found, sides):
    maker = np.array(found.maker)
    for number in NUMBERS:
        held_out = partitions.held_out_makers(found, number)
        assert held_out and "old maker" not in held_out and "maker 0" not in held_out
        assert set(maker[sides[number] == "test_sets"]) <= held_out
        for side in ("train", "validation", "test"):
            assert not set(maker[sides[number] == side]) & held_out
        counts = collections.Counter(m for m, s in zip(found.maker, found.split) if s == "train")
        assert all(100 <= counts[m] <= 900 for m in held_out)
        assert (
            0.05 <= sum(counts[m] for m in held_out) / counts.total() < 0.05 + 900 / counts.total()
        )
    assert len({partitions.held_out_makers(found, n) for n in range(1, 9)}) > 1


def test_training_holds_every_other_drawing(found, sides):
    for number in NUMBERS:
        held_out = partitions.held_out_makers(found, number)
        tested = concepts(found, sides[number], "validation", "test", "test_sets")
        expected = [
            c not in tested and m not in held_out for c, m in zip(found.concept, found.maker)
        ]
        assert ((sides[number] == "train") == expected).all()


@pytest.fixture
def parts(small_icons):
    """The sides that have drawings: in the small package every concept of `test@1` is held out."""
    return {side: open_pairs(f"demo:icons:{side}@1") for side in icons.SPLITS if side != "test"}


def test_pairs_of_a_partition_have_the_drawings_of_the_plain_splits(parts, small_icons):
    plain = {
        p.id: (p.captions, p.image.content)
        for split in icons.SPLITS
        for p in open_pairs(f"demo:icons:{split}")
    }
    ids = [p.id for pairs in parts.values() for p in pairs]
    assert len(ids) == len(set(ids)) > 0.5 * len(plain)
    for pairs in parts.values():
        for p in list(pairs)[::20]:
            assert (p.captions, p.image.content) == plain[p.id]


def test_no_test_drawing_is_nearly_one_of_training(parts):
    def vectors(pairs):
        pixels = [np.frombuffer(render.thumbnail(p.image.content), np.uint8) for p in pairs]
        return alike.standardised(np.stack(pixels))

    train = vectors(parts["train"])
    for side in ("validation", "test_sets"):
        assert alike.closest(vectors(parts[side]), train).max() <= alike.CORRELATION


def test_a_slice_is_the_start_of_a_longer_one(parts):
    whole = [p.id for p in parts["train"]]
    assert [p.id for p in open_pairs("demo:icons:train@1[:50]")] == whole[:50]
    makers = {one.split(":")[0] for one in whole[:50]}
    assert len(makers) == len({one.split(":")[0] for one in whole})


def test_the_list_is_made_once(parts, monkeypatch):
    monkeypatch.setattr(listing, "_build", lambda work: pytest.fail("it is made again"))
    monkeypatch.setattr(listing, "_build_partition", lambda *_: pytest.fail("it is made again"))
    listing._listing.cache_clear(), listing._sides.cache_clear()
    assert len(open_pairs("demo:icons:train@1")) == len(parts["train"])


def test_further_fields_say_who_drew_it(small_icons):
    from ape_jax.data.formats import demo
    from ape_jax.data.rows import Ask

    for split in ("train", "train@1"):
        rows = list(demo.read_demo(f"demo:icons:{split}[:20]", Ask(key="data.pairs")).rows)
        for row in rows:
            known = {"alpha": "Maker A", "beta": "Maker B", "gamma": "Marketeq"}
            assert known[row.fields["set"]] == row.fields["maker"]
            assert row.fields["concept"] == row.fields["label"]


@pytest.mark.parametrize(
    "spec, message",
    [
        ("demo:icons:dev@1", r"split 'dev@1' is unknown; write one of .*test_sets, or of a part"),
        ("demo:icons:train@1[:99999]", r"data.pairs: .*train@1 has \d+ images and no slice"),
    ],
)
def test_wrong_specs_are_one_sentence(small_icons, spec, message):
    with pytest.raises(UserError, match=message):
        open_pairs(spec)


def test_parts_are_read_as_specs_write_them():
    part = numbered.parse("test_sets@12[10%:]", icons.SPLITS)
    assert part == numbered.Part("test_sets", 12, "[10%:]") and str(part) == "test_sets@12"
    assert numbered.cut(list(range(40)), part) == list(range(4, 40))


def test_pictures_can_be_decoded(parts):
    with Image.open(io.BytesIO(parts["train"][0].image.content)) as image:
        assert image.size == (112, 112)
