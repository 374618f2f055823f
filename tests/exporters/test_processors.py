"""The image processor that exports ship, against the transform that the tower was trained with."""

import importlib.util
import pathlib

import numpy as np
import pytest
from PIL import Image

from ape_jax import exporters
from ape_jax.exporters import processors
from ape_jax.images.transforms import ImageTransform

TRANSFORMS = {
    "transformers": {"resize": "shortest"},
    "timm": {"resize": "shortest", "rounding": "torchvision"},
    "timm's border": {"resize": "longest", "rounding": "torchvision", "fill": (9, 120, 240)},
    "a crop that is larger": {"resize": "exact", "rounding": "torchvision", "resize_size": 19},
}


@pytest.fixture(scope="module")
def image_processor():
    """The class in the file that exports copy, under a name of its own."""
    path = pathlib.Path(exporters.__file__).parent / "shipped" / "processing_ape.py"
    spec = importlib.util.spec_from_file_location("copied_processing", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ApeImageProcessor


@pytest.mark.parametrize("name", TRANSFORMS)
def test_it_gives_the_bits_of_the_transform(image_processor, name):
    transform = ImageTransform(**{"size": 24, "resize_size": 27, **TRANSFORMS[name]})
    settings = processors.image_settings(transform) | processors.own_settings(transform)
    shipped = image_processor(**settings)
    for height, width in ((61, 90), (90, 61), (23, 20), (200, 31)):
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
        got = shipped(images=Image.fromarray(image), return_tensors="np")["pixel_values"][0]
        np.testing.assert_array_equal(got.transpose(1, 2, 0), transform(image))
