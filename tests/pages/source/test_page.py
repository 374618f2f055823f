"""The page about pairs: whole, bounded, and nothing of the user's is run."""

import dataclasses
import html.parser
import re

import numpy as np
import pytest
from PIL import Image

from ape_jax.data.overview.overview import overview
from ape_jax.data.pairs import Pair, Pairs, table_of
from ape_jax.data.table.problems import Problem
from ape_jax.images.decode import ImageRef
from ape_jax.pages import source, thumbs


class Reader(html.parser.HTMLParser):
    """Tags and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert all(value[0] == "#" for name, value in attrs if name in ("src", "href"))

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root, rng, made = tmp_path_factory.mktemp("page"), np.random.default_rng(0), []
    for i in range(90):
        path = root / f"{i}.png"
        if i == 3:
            path.write_bytes(b"broken")
        else:
            pixels = rng.integers(0, 256, (9, 9, 3), np.uint8) if i < 80 else np.zeros((9, 9, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(path)
        captions = (f"</style><script>{i}</script>", "the same", *(f"t{k}" for k in range(i % 9)))
        made.append(Pair(ImageRef(str(path), path.name), captions, f'"><u>{i}'))
    made.append(Pair(ImageRef(str(root / "0.png"), "0.png"), ("w" * 10**6,), "long"))
    table = dataclasses.replace(table_of(made), notes=["cells are separated by <;>"])
    problem = Problem("<u>", "empty <caption>", "a caption is <empty>")
    return Pairs(table, "<made>", problems=table.found_broken().with_images([problem]))


def test_all_is_there_and_nothing_of_the_users_is_run(pairs):
    text = source.document(overview(pairs), pairs)
    page = Reader(text)
    assert not {"script", "u", "link", "iframe", "img"} & set(page.tags)
    for words in (
        "Pairs: <made>",
        f"91 images, {pairs.num_captions} captions",
        "cells are separated by <;>",
        "empty <caption> <u> a caption is <empty>",
        "</style><script>0</script>",
        "A sample of 60, evenly spaced",
        "Longest captions",
        "the same caption on several images",
        "90 images",
        "3.png: this is not an image",
    ):
        assert words in page.text, words
    assert set(re.findall(r"url\((.{5})", text)) == {"data:"}
    assert len(text) < 1_000_000


def test_pictures_are_bounded(pairs, monkeypatch):
    monkeypatch.setattr(thumbs, "_BYTES", 2000)
    text = source.document(overview(pairs), pairs)
    assert "not shown" in text and len(re.findall(r"url\(", text)) < 12
