"""The image side of `prepare`: settings found, images made, batches stacked."""

import json

import numpy as np
import pytest
from PIL import Image

from ape_jax import towers
from ape_jax.errors import UserError
from ape_jax.images.transforms import ImageTransform
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.vision.vit.dinov2 import DINOV2

DINO = towers.build({"model_type": "dinov2", "image_size": 518})[1]
SETTINGS = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 40},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 28, "width": 28},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def test_own_settings_make_the_batch(tmp_path, picture):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(SETTINGS))
    got = DINOV2.prepare(tmp_path, DINO, {})([picture, Image.fromarray(picture)])["image"]
    assert got.shape == (2, 28, 28, 3) and got.dtype == np.float32
    np.testing.assert_array_equal(got[0], got[1])
    want = ImageTransform.from_preprocessor_config(SETTINGS)(picture)
    np.testing.assert_array_equal(got[0], want)


def test_settings_inside_a_processor_config_are_found(tmp_path, picture):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": SETTINGS}))
    assert DINOV2.prepare(tmp_path, DINO, {})([picture])["image"].shape == (1, 28, 28, 3)


def test_image_size_scales_the_resize_too(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(SETTINGS))
    transform = DINOV2.prepare(tmp_path, DINO, {"image_size": 14}).transform
    assert (transform.size, transform.resize_size) == (14, 20)


@pytest.mark.parametrize(
    ("family", "resize_size", "mean"),
    [
        ("vit", 224, 0.5),
        ("deit", 256, 0.485),
        ("dinov2", 256, 0.485),
        ("clip", 224, 0.48145466),
        ("siglip", 224, 0.5),
    ],
)
def test_defaults_where_a_directory_has_no_settings(tmp_path, family, resize_size, mean):
    config = towers.build({"model_type": family, "vision_config": {}}, kind="image")[1]
    transform = FAMILIES[family].prepare(tmp_path, config, {}).transform
    assert (transform.size, transform.resize_size) == (224, resize_size)
    assert transform.mean[0] == mean


@pytest.mark.parametrize("images", ["cat.png", 3, b"bytes"])
def test_one_image_is_not_a_list_of_images(images):
    with pytest.raises(UserError, match="prepare takes a list of images"):
        DINOV2.prepare(None, DINO, {})(images)


def test_no_images_give_an_empty_batch():
    assert DINOV2.prepare(None, DINO, {})([])["image"].shape == (0, 224, 224, 3)
