"""The image processor that exports ship, against the transform that the tower was trained with."""

import importlib.util
import io
import pathlib
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from ape_jax import exporters
from ape_jax.exporters import processors
from ape_jax.images.decode import load_image
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


@pytest.mark.parametrize("orientation", range(10))
def test_it_turns_an_image_as_we_do_whatever_else_its_exif_holds(image_processor, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x0132] = orientation, 1.0, "2026"
    # A signed rational of -1/0 is read and cannot be written again.
    odd = exif.tobytes().replace(b"\x01\x1a\0\x05", b"\x01\x1a\0\x0a")
    odd = odd.replace(struct.pack(">II", 1, 1), struct.pack(">iI", -1, 0))
    file, pixels = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (9, 16, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG", exif=odd)
    if orientation in range(2, 9):
        with pytest.raises(struct.error):
            ImageOps.exif_transpose(Image.open(file))
    got = image_processor().convert_to_rgb(Image.open(file))
    np.testing.assert_array_equal(got, load_image(file.getvalue()))
    assert got.shape == ((16, 9, 3) if 5 <= orientation <= 8 else (9, 16, 3))
