"""Which columns are the images, the captions, the ids and the labels."""

import pytest

from ape_jax.data import columns
from ape_jax.errors import UserError


def chosen(*found, labels=False, **asked):
    made = columns.choose(found, {k: (v,) for k, v in asked.items()}, labels, "p.csv:1")
    return made.image, made.captions, made.id, made.left


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (("image", "caption"), ("image", ("caption",), None, ())),
        (("File Name", "TEXT", "w"), ("File Name", ("TEXT",), None, ("w",))),
        (("filepath", "title", "id"), ("filepath", ("title",), "id", ())),
        (("image", "captions", "caption"), ("image", ("captions", "caption"), None, ())),
        (("image", "caption_0", "caption_1"), ("image", ("caption_0", "caption_1"), None, ())),
        (("image", "caption", "caption_2"), ("image", ("caption", "caption_2"), None, ())),
        (
            ("image", "caption", "caption_long", "raw_caption"),
            ("image", ("caption",), None, ("caption_long", "raw_caption")),
        ),
        (("url", "alt-text", "image_id"), ("url", ("alt-text",), None, ("image_id",))),
    ],
)
def test_columns_by_their_usual_names(found, expected):
    assert chosen(*found) == expected


def test_columns_that_are_asked_for_go_before_usual_names():
    found = ("image", "caption", "Bild", "Text", "nr")
    assert chosen(*found, image="Bild", captions="Text", id="nr") == (
        "Bild",
        ("Text",),
        "nr",
        ("image", "caption"),
    )


def test_labels():
    assert chosen("img", "fine_label", "x", labels=True) == ("img", ("fine_label",), None, ("x",))


@pytest.mark.parametrize(
    ("found", "asked", "message"),
    [
        (("a", "b"), {}, "p.csv:1: found the columns 'a', 'b'; name them 'image' and 'captions'"),
        (("image", "caption"), {"captions": "x"}, "there is no column 'x', which data.columns"),
        (("image", "caption", "caption"), {}, "the column 'caption' is there twice"),
        ((), {}, "found the columns none"),
    ],
)
def test_columns_that_cannot_be_told(found, asked, message):
    with pytest.raises(UserError, match=message):
        chosen(*found, **asked)
