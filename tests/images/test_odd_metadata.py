"""Odd metadata never refuse good pixels, and pixels that are damaged or missing never pass."""

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ape_jax.images.decode import ImageError, load_image
from ape_jax.images.essential import essential
from tests.images.odd import (
    AVIF,
    DAMAGED,
    JPEGS,
    OTHERS,
    PNGS,
    ROWS,
    SIZE,
    STEPS,
    WEBP,
    WHOLE,
    jpeg,
    picture,
)


def turned(pixels, orientation):
    return np.rot90(pixels, -1) if orientation == 6 else pixels


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of metadata.
@pytest.mark.parametrize("name", PNGS)
def test_a_png_is_decoded(name):
    data, orientation = PNGS[name]
    np.testing.assert_array_equal(load_image(data), turned(picture(), orientation))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_is_decoded(name):
    data, orientation = JPEGS[name]
    progressive, restarts = "progressive" in name, "restarts" in name
    clean = Image.open(io.BytesIO(jpeg(progressive=progressive, restart_marker_rows=int(restarts))))
    np.testing.assert_array_equal(load_image(data), turned(np.asarray(clean), orientation))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", OTHERS)
def test_another_format_is_decoded(name):
    data, orientation = OTHERS[name]
    expected, got = turned(picture(), orientation), load_image(data)
    assert got.shape == expected.shape
    if name.startswith(("WebP", "TIFF")):
        np.testing.assert_array_equal(got, expected)
    else:
        assert np.abs(got.astype(int) - expected).mean() < 8


def opened_pngs_and_jpegs():
    """Images that Pillow opens, and may refuse only when they are read."""
    for kinds in (PNGS, JPEGS):
        for name, (data, orientation) in kinds.items():
            try:
                yield name, Image.open(io.BytesIO(data)), orientation
            except Exception:  # The user's own program ends here.
                continue


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_pillow_has_opened_is_read_likewise():
    count = 0
    for name, image, orientation in opened_pngs_and_jpegs():
        expected = SIZE if orientation == 6 else SIZE[::-1]
        assert load_image(image).shape == (*expected, 3), name
        count += 1
    assert count > 30


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pixels_do_not_pass(name):
    with pytest.raises(ImageError, match="damaged"):
        load_image(DAMAGED[name])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_no_cut_of_a_jpeg_passes_unless_its_pixels_are_all_there(options):
    data = jpeg(**options)
    pixels = load_image(data)
    for cut in range(3, len(data), 61):
        try:
            np.testing.assert_array_equal(load_image(data[:-cut]), pixels)
        except ImageError:
            continue


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=16),
    st.integers(0, 2000),
    st.sampled_from([WHOLE, STEPS, ROWS, AVIF, WEBP]),
    st.booleans(),
)
def test_damaged_files_have_an_essence_or_none(junk, at, whole, cut):
    data = whole[:at] + junk + (b"" if cut else whole[at + len(junk) :])
    found = essential(data)
    assert found is None or len(found.data) <= len(data) + 3


def test_a_bomb_in_metadata_takes_no_memory():
    data = PNGS["text above the limit"][0]
    tracemalloc.start()
    load_image(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
