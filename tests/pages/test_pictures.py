"""Thumbnails: once in the page, small ones sharp, large ones bounded."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from ape_jax.pages.pictures import Pictures, img


def added(height, width):
    pictures = Pictures()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    pictures.add("a", pixels)
    content = re.search(r"base64,([^)]+)", pictures.rules)[1]
    return pictures, Image.open(io.BytesIO(base64.b64decode(content))), pixels


@pytest.mark.parametrize(("side", "shown"), [(20, 80), (40, 80), (72, 72)])
def test_small_ones_are_kept_and_shown_by_whole_multiples(side, shown):
    pictures, image, pixels = added(side, side)
    np.testing.assert_array_equal(image, pixels)
    assert f"background-size:{shown}px" in pictures.rules
    assert ("pixelated" in pictures.rules) == (shown > side)


def test_large_ones_are_made_small_and_never_enlarged():
    pictures, image, _ = added(900, 600)
    assert image.size == (109, 164) and image.format == "JPEG"
    assert "background-size:55px" in pictures.rules and "pixelated" not in pictures.rules
    assert pictures.nbytes < 40_000


def test_titles_are_escaped():
    frame = Pictures().thumb("a", 'a "b" <c>', "1 < 2")
    assert 'title="a &quot;b&quot; &lt;c&gt;"' in frame and "1 &lt; 2" in frame


def test_an_element_of_its_own_is_sharp_too():
    element = img(np.zeros((36, 40, 3), np.uint8), "<b>")
    assert 'width="160"' in element and "pixelated" in element and 'title="&lt;b&gt;"' in element
