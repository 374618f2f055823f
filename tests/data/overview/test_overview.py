"""All figures of a small source, counted by hand."""

import numpy as np
import pytest
from PIL import Image

from ape_jax.data.overview.overview import Tokenizer, overview
from ape_jax.data.pairs import Pair, Pairs
from ape_jax.images.decode import ImageRef

CAPTIONS = [("a red square", "a\u3000red  bar"), ("кошка",), ("a cat", "a red square", "x" * 90)]


@pytest.fixture
def pairs(tmp_path):
    made = []
    for i, captions in enumerate(CAPTIONS * 4):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (20 + i, 30), (10 * i, 0, 0)).save(path, "JPEG" if i == 2 else "PNG")
        made.append(Pair(ImageRef(str(path), path.name), captions, f"{i}"))
    (tmp_path / "5.png").write_bytes(b"no image")
    return Pairs.of(made, "made")


def test_figures_are_those_counted_by_hand(pairs):
    tokenizer = Tokenizer(tower="words", limit=2, lengths=lambda x: np.array([*map(_words, x)]))
    found = overview(pairs, tokenizer=tokenizer, samples=4)
    texts = [text for captions in CAPTIONS * 4 for text in captions]
    assert (found.images, found.captions) == (12, len(texts))
    assert found.per_image.counts == {1: 4, 2: 4, 3: 4}
    assert sorted(found.characters.counts) == sorted(set(map(len, texts)))
    assert found.words.counts == {1: 8, 2: 4, 3: 12}
    assert found.tokens.cut == sum(_words(text) > 2 for text in texts)
    assert found.scripts == {"Latin": 20, "Cyrillic": 4}
    assert found.same_caption.most[0].images == 8 and found.same_caption.things == 5
    assert found.longest[:4] == [2, 5, 8, 11] and found.shortest[0] in (1, 2)
    assert found.samples == [0, 3, 7, 11]


def _words(text):
    return len(text.split())


def test_sizes_are_those_of_headers(pairs):
    sizes = overview(pairs).sizes
    assert (sizes.looked_at, sizes.unreadable) == (11, 1)
    assert sizes.formats == {"PNG": 10, "JPEG": 1}
    assert (sizes.width.min, sizes.width.max) == (20, 31) and sizes.height.counts == {30: 11}
