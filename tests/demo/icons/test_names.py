"""Names to captions, captions to concepts."""

import pytest

from ape_jax.demo.icons import sets as icons_sets
from ape_jax.demo.icons.names import Cleaner, concept_keys, problem, style_tails

THINGS = [f"{a}{b}" for a in ("cat", "dog", "cow", "hen", "pig") for b in ("house", "food", "toy")]


@pytest.mark.parametrize(
    "name, caption",
    [
        ("account-heart-outline", "account heart"),
        ("account_heart", "account heart"),
        ("Account--Heart", "account heart"),
        ("arrow-left-24", "arrow left"),
        ("arrow-left-24px", "arrow left"),
        ("bag-suitcase-4", "bag suitcase"),
        ("headphones3", "headphones"),
        ("file-mp3", "file mp3"),
        ("24-hours", "24 hours"),
        ("escalator-escalator", "escalator"),
        ("bell-two-tone", "bell"),
        ("traffic-light", "traffic light"),  # one name does not make a style
        ("outline", "outline"),  # never down to nothing
    ],
)
def test_caption(name, caption):
    assert Cleaner([name]).caption(name) == caption


def test_the_sets_own_prefixes_and_suffixes_go_the_longest_first():
    cleaner = Cleaner(["x"], prefixes=("outline", "round"), suffixes=("solid", "16-solid"))
    assert cleaner.caption("outline-airline-seat") == "airline seat"
    assert cleaner.caption("bell-16-solid") == "bell"
    assert cleaner.caption("solid") == "solid"


def test_weak_words_are_styles_where_a_set_uses_them_so():
    styled = [*THINGS, *(f"{thing}-bold" for thing in THINGS), "text-bold", "traffic-light"]
    cleaner = Cleaner(styled)
    assert cleaner.caption("cathouse-bold") == "cathouse"
    assert cleaner.caption("traffic-light") == "traffic light"
    # Many names, each in this form alone: a style as well.
    assert Cleaner([f"{thing}-line" for thing in THINGS]).caption("cathouse-line") == "cathouse"


def test_a_weak_word_that_is_rare_and_has_no_variants_is_no_style():
    names = [f"{a}-{b}" for a in THINGS for b in THINGS] + [f"{thing}-line" for thing in THINGS[:9]]
    assert style_tails(names) == frozenset()


@pytest.mark.parametrize("caption", ["", "24", "a", "4 5", "outline", "u1faaa", "x 9"])
def test_captions_without_a_word_are_dropped(caption):
    assert problem(caption) == "names without a word"


def test_long_captions_are_dropped_and_good_ones_kept():
    assert problem("one two three four five six seven") == "names of more than 6 words"
    for good in ("tv", "3d", "mp3", "arrow left", "letter a"):
        assert problem(good) is None


def test_reordered_plural_and_joined_captions_are_one_concept():
    keys = concept_keys(
        [
            "arrow left",
            "left arrows",
            "check box",
            "checkbox",
            "boxes check",
            "glass",
            "glas",
            "a b",
        ]
    )
    assert keys["arrow left"] == keys["left arrows"] == "arrow left"
    assert keys["check box"] == keys["checkbox"] != keys["boxes check"]
    assert keys["glass"] != keys["glas"]
    assert len(set(keys.values())) == 6


def test_concepts_do_not_depend_on_the_order_of_captions():
    captions = ["box check", "checkbox", "check box", "boxcheck", "left", "lefts"]
    assert concept_keys(captions) == concept_keys(reversed(captions))


def test_brands_are_names_that_several_logo_sets_share():
    names = {
        "bxl": ["acme", "github", "line"],
        "cib": ["acme", "github-logo", "line"],
        "logos": ["acme-icon", "line"],
        "fa7-brands": ["jedi-order", "usb"],
    }
    brands = icons_sets.brand_captions(names)
    assert brands == {"acme", "jedi order"}  # github twice; "line" and "usb" are words
    assert icons_sets.is_brand("acme circle", brands)
    assert not icons_sets.is_brand("acme car", brands)
    assert icons_sets.is_brand("logo of acme", frozenset())
