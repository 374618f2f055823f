"""The plan: what is left out adds up, and nothing crosses from one split to another."""

from collections import Counter

import pytest

from ape_jax.demo.icons import plan as icons_plan


@pytest.fixture(scope="module")
def sets(icon_sets):
    return [icons_plan.IconSet.parse(one) for one in icon_sets]


@pytest.fixture(scope="module")
def listed(icon_sets):
    return {one["prefix"]: one["info"] for one in icon_sets if one["prefix"] != "withdrawn"}


@pytest.fixture(scope="module")
def plan(sets, listed):
    return icons_plan.make_plan(sets, listed)


def test_every_icon_is_used_or_counted(plan, icon_sets):
    total = sum(len(one["icons"]) for one in icon_sets)
    used = sum(map(len, plan.splits.values()))
    assert used + plan.dropped.total() - plan.dropped["aliases"] == total


def test_reasons(plan):
    expected = {
        "aliases": 1,
        "animated icons": 1,
        "hidden icons": 1,
        "icons of brands in other sets": 2,
        "icons of emoji sets": 2,
        "icons of flag sets": 1,
        "icons of logo sets": 1,
        "icons of sets that the package hides": 2,
        "names of more than 6 words": 1,
        "names without a word": 2,
        "further drawings of a concept by the same maker": 312,
    }
    assert expected.items() <= plan.dropped.items()


def test_every_split_has_icons_and_no_concept_is_in_two(plan):
    concepts = {split: {i.concept for i in icons} for split, icons in plan.splits.items()}
    assert all(concepts[split] for split in icons_plan.SPLITS)
    assert sum(map(len, concepts.values())) == len(set.union(*concepts.values()))


def test_held_out_makers_are_in_test_sets_alone(plan):
    for split, icons in plan.splits.items():
        apart = {icon.set.maker in icons_plan.HELD_OUT_MAKERS for icon in icons}
        assert apart == {split == "test_sets"}


def test_tests_hold_one_drawing_a_concept(plan):
    for split in icons_plan.SPLITS[1:]:
        assert max(Counter(icon.concept for icon in plan.splits[split]).values()) == 1


def test_a_maker_draws_a_concept_once_in_colour_if_it_can(sets, listed):
    same = [one for one in sets if one.key in ("alpha", "beta")]
    joined = [icons_plan.dataclasses.replace(one, maker="One") for one in same]
    icons = icons_plan.make_plan(joined, listed).splits["train"]
    assert max(Counter(icon.concept for icon in icons).values()) == 1
    assert {icon.set.key for icon in icons if icon.name.startswith("thing")} == {"beta"}


def test_train_holds_a_concept_a_few_times_only(sets, listed):
    alpha = next(one for one in sets if one.key == "alpha")
    many = [
        icons_plan.dataclasses.replace(alpha, key=f"k{i}", maker=f"Maker {i}") for i in range(9)
    ]
    listed = {one.key: listed["alpha"] for one in many}
    icons = icons_plan.make_plan(many, listed).splits["train"]
    assert set(Counter(icon.concept for icon in icons).values()) == {icons_plan.MOST_DRAWINGS}
    assert len({icon.set.key for icon in icons}) == 9  # which of the nine is left to chance


def test_splits_do_not_depend_on_the_order_of_sets(sets, listed, plan):
    again = icons_plan.make_plan(reversed(sets), listed)
    assert again.splits == plan.splits and again.dropped == plan.dropped


def test_a_concepts_side_does_not_depend_on_the_other_concepts(sets, listed, plan):
    fewer = [icons_plan.dataclasses.replace(one, names=one.names[::2]) for one in sets]
    side = {icon.concept: split for split, icons in plan.splits.items() for icon in icons}
    for split, icons in icons_plan.make_plan(fewer, listed).splits.items():
        for icon in icons:
            # What no held-out maker draws any longer may leave test_sets.
            assert side[icon.concept] in (split, "test_sets")


def test_licence_falls_back_on_its_title(icon_sets):
    one = {**icon_sets[0], "info": {**icon_sets[0]["info"], "license": {"title": "Free"}}}
    assert icons_plan.IconSet.parse(one).licence == "Free"
