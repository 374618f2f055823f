"""Augment: the crop's distribution and fallback, the flip, RandAugment, the checks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ape_jax.errors import UserError
from ape_jax.images.augment import Augment, crop_box
from ape_jax.images.randaugment import OPERATIONS, randaugment
from ape_jax.images.transforms import ImageTransform

TRANSFORM = ImageTransform(
    size=16, resize_size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), rescale=1.0
)
RATIO = (3 / 4, 4 / 3)


def image(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, 255 - x - y], -1).astype(np.uint8)


def reference_box(rng, height, width, area, ratio):
    """RandomResizedCrop.get_params of torchvision 0.20, with numpy's draws in the same order."""
    log_ratio = np.log(ratio)
    for _ in range(10):
        target_area = height * width * rng.uniform(area[0], area[1])
        aspect_ratio = np.exp(rng.uniform(log_ratio[0], log_ratio[1]))
        w = round(math.sqrt(target_area * aspect_ratio))
        h = round(math.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    in_ratio = float(width) / float(height)
    if in_ratio < min(ratio):
        w = width
        h = round(w / min(ratio))
    elif in_ratio > max(ratio):
        h = height
        w = round(h * max(ratio))
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@settings(max_examples=200, deadline=None)
@given(
    st.integers(2, 300),
    st.integers(2, 300),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple),
    st.integers(0, 2**32),
)
def test_crop_box_equals_the_documented_sampling(height, width, area, seed):
    got = crop_box(np.random.default_rng(seed), height, width, area, RATIO)
    expected = reference_box(np.random.default_rng(seed), height, width, area, RATIO)
    assert got == tuple(map(int, expected))
    top, left, h, w = got
    assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width and h and w


def test_crop_area_and_ratio_cover_their_ranges():
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box(rng, 1000, 1000, (0.2, 0.5), RATIO) for _ in range(4000)])
    area = boxes[:, 2] * boxes[:, 3] / 1e6
    ratio = np.log(boxes[:, 3] / boxes[:, 2])
    assert 0.199 < area.min() < 0.203 and 0.497 < area.max() < 0.501
    assert abs(area.mean() - 0.35) < 0.01 and abs(ratio.mean()) < 0.02
    assert abs(ratio.std() - 2 * math.log(4 / 3) / math.sqrt(12)) < 0.01


@pytest.mark.parametrize(
    ("shape", "box"), [((10, 400), (0, 193, 10, 13)), ((400, 10), (193, 0, 13, 10))]
)
def test_long_images_fall_back_to_the_centre(shape, box):
    assert crop_box(np.random.default_rng(0), *shape, (1.0, 1.0), RATIO) == box


def test_one_pixel_image():
    view = Augment(crop=(0.2, 1.0))(image(1, 1), np.random.default_rng(0), TRANSFORM)
    assert view.shape == (16, 16, 3)


def test_crop_does_not_see_beyond_its_box():
    # A white image with one black half: a crop inside the white half is white to its edges.
    half = np.full((64, 64, 3), 255, np.uint8)
    half[:, 32:] = 0
    rng = np.random.default_rng(0)
    for _ in range(50):
        state = rng.bit_generator.state
        _, left, _, width = crop_box(rng, 64, 64, (0.05, 0.2), RATIO)
        rng.bit_generator.state = state
        view = Augment(crop=(0.05, 0.2))(half, rng, TRANSFORM)
        if left + width <= 32:
            assert (view == 255).all()


def test_nothing_set_is_the_plain_transform():
    plain = TRANSFORM(image())
    np.testing.assert_array_equal(Augment()(image(), np.random.default_rng(0), TRANSFORM), plain)


def test_flip_mirrors_half_of_the_views():
    plain = TRANSFORM(image())
    views = [Augment(flip=True)(image(), np.random.default_rng(i), TRANSFORM) for i in range(200)]
    flipped = [np.array_equal(v, plain[:, ::-1]) for v in views]
    assert all(f or np.array_equal(v, plain) for f, v in zip(flipped, views))
    assert 70 < sum(flipped) < 130


def test_a_view_is_a_function_of_its_generator():
    augment = Augment(crop=(0.2, 1.0), flip=True, randaugment=(2, 7))
    a, b, c = (augment(image(), np.random.default_rng(s), TRANSFORM) for s in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c) and a.dtype == np.float32 and a.shape == (16, 16, 3)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_operations_keep_size_and_mode(name, strength, sign):
    out = OPERATIONS[name](Image.fromarray(image()), strength, sign)
    assert out.size == (60, 40) and out.mode == "RGB"


def test_there_are_the_fourteen_standard_operations():
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"autocontrast", "equalize", "identity"}))
def test_strength_zero_changes_almost_nothing_and_one_does(name):
    noise = np.random.default_rng(0).integers(0, 40, (40, 60, 3), np.uint8)
    before = (image() // 2 + noise).astype(int)
    still, moved = (
        np.asarray(OPERATIONS[name](Image.fromarray(before.astype(np.uint8)), s, 1)).astype(int)
        for s in (0.0, 1.0)
    )
    assert abs(still - before).mean() < 1.5
    assert abs(moved - before).mean() > 2


@pytest.mark.parametrize("axis", ["x", "y"])
def test_translation_moves_by_the_documented_share(axis):
    moved = np.asarray(OPERATIONS[f"translate_{axis}"](Image.fromarray(image(331, 331)), 1.0, -1))
    grey = (moved == 128).all(-1)
    assert grey.all(0 if axis == "x" else 1).sum() == 150


def test_randaugment_of_no_operations_is_the_image():
    np.testing.assert_array_equal(randaugment(image(), 0, 5, np.random.default_rng(0)), image())


BAD = {
    "zero-width crop": ({"crop": (0, 0)}, "augment.crop"),
    "negative crop": ({"crop": (-0.5, 1)}, "augment.crop"),
    "inverted crop": ({"crop": (0.9, 0.2)}, "augment.crop"),
    "crop above one": ({"crop": (0.5, 1.5)}, "augment.crop"),
    "crop of one number": ({"crop": (0.5,)}, "augment.crop"),
    "crop a number": ({"crop": 0.5}, "augment.crop"),
    "crop text": ({"crop": ("a", "b")}, "augment.crop"),
    "crop nan": ({"crop": (math.nan, 1)}, "augment.crop"),
    "inverted ratio": ({"ratio": (2, 1)}, "augment.ratio"),
    "flip number": ({"flip": 0.5}, "augment.flip"),
    "magnitude": ({"randaugment": (2, 11)}, "augment.randaugment"),
    "operations": ({"randaugment": (-1, 5)}, "augment.randaugment"),
    "half an operation": ({"randaugment": (1.5, 5)}, "augment.randaugment"),
    "randaugment a number": ({"randaugment": 2}, "augment.randaugment"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", BAD)
def test_bad_settings_name_their_key(name):
    kwargs, key = BAD[name]
    with pytest.raises(UserError) as error:
        Augment(**kwargs)
    assert str(error.value).startswith(f"{key}:") and "\n" not in str(error.value)
