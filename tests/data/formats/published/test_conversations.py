"""LLaVA's and ShareGPT4V's conversations."""

import pytest

from ape_jax.data.formats.published.conversations import CONVERSATIONS
from ape_jax.errors import UserError


def turns(*values: str) -> list[dict]:
    return [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]


ITEMS = [
    {"id": "1", "image": "coco/1.jpg", "conversations": turns("What?\n<image>", "a cat")},
    {
        "id": "2",
        "image": "2.jpg",
        "conversations": turns("<image>", "<image>\na dog", "Why?", "so"),
    },
    {"id": "3", "conversations": turns("Write a poem.", "Roses")},
]


def test_the_first_answer_is_the_caption_and_the_rest_is_said(read, write):
    got = read(CONVERSATIONS, write("llava_instruct_150k.json", ITEMS))
    assert got.pairs == [("coco/1.jpg", "a cat"), ("2.jpg", "\na dog")]
    assert (
        "first answer of each conversation, without <image>; 1 later answer not read"
        in (got.said[0])
    )
    assert "1 conversation without an image not read" in got.said[1]
    assert not got.broken


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (7, "damaged row"),
        ({"image": "a.jpg", "conversations": "a cat"}, "empty caption"),
        ({"image": "a.jpg", "conversations": []}, "empty caption"),
        ({"image": "a.jpg", "conversations": [{"from": "human", "value": "x"}]}, "empty caption"),
        ({"image": ["a.jpg", "b.jpg"], "conversations": turns("x", "y")}, "no image"),
    ],
)
def test_a_bad_conversation_is_named_and_the_others_are_read(read, write, item, kind):
    got = read(CONVERSATIONS, write("a.json", [*ITEMS, item]))
    assert len(got.rows) == 2 and [(b.at, b.kind) for b in got.broken] == [("[3]", kind)]


def test_a_list_of_one_image_is_that_image(read, write):
    item = {"image": ["a.jpg"], "conversations": [{"from": "assistant", "value": None}]}
    got = read(CONVERSATIONS, write("a.json", [item]))
    assert got.pairs == [("a.jpg", None)]


def test_conversations_about_no_image_are_refused(read, write):
    with pytest.raises(UserError, match="none of 1 conversations has an 'image'"):
        read(CONVERSATIONS, write("a.json", ITEMS[2:]))
