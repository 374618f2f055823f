"""The image processor that exports ship, against the transform that the tower was trained with."""

import io
import json
import struct
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from ape_jax.exporters import processors
from ape_jax.images.decode import ImageError, load_image
from ape_jax.images.transforms import ImageTransform
from tests.images import odd

TRANSFORMS = {
    "transformers": {"resize": "shortest"},
    "timm": {"resize": "shortest", "rounding": "torchvision"},
    "timm's border": {"resize": "longest", "rounding": "torchvision", "fill": (9, 120, 240)},
    "a crop that is larger": {"resize": "exact", "rounding": "torchvision", "resize_size": 19},
}


@pytest.fixture(scope="module")
def image_processor(tmp_path_factory):
    """The class as transformers imports it from an export: from a copy, by itself."""
    from transformers import AutoImageProcessor

    folder = tmp_path_factory.mktemp("export")
    processors.copy_code(folder)
    settings = {
        "image_processor_type": "ApeImageProcessor",
        "auto_map": {"AutoImageProcessor": "processing_ape.ApeImageProcessor"},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    before = set(sys.modules)
    yield type(AutoImageProcessor.from_pretrained(folder, trust_remote_code=True))
    for name in set(sys.modules) - before:  # Other tests see that nothing of ours imports it.
        if name.startswith("transformers_modules"):
            del sys.modules[name]


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


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of metadata.
@pytest.mark.parametrize("name", odd.GOOD)
def test_odd_metadata_refuse_no_image_that_it_opens(image_processor, tmp_path, name):
    data, _ = odd.GOOD[name]
    (tmp_path / "odd").write_bytes(data)
    shipped, expected = image_processor(), load_image(data)
    for source in (data, str(tmp_path / "odd"), tmp_path / "odd"):
        (image,) = shipped.fetch_images([source])
        np.testing.assert_array_equal(shipped.convert_to_rgb(image), expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_odd_metadata_refuse_no_image_that_somebody_else_has_opened(image_processor):
    count = 0
    for name, (data, _) in odd.GOOD.items():
        try:
            image = Image.open(io.BytesIO(data))
        except Exception:  # The user's own program ends here.
            continue
        got = image_processor().convert_to_rgb(image)
        np.testing.assert_array_equal(got, load_image(data), err_msg=name)
        count += 1
    assert count > 40


@pytest.mark.parametrize("name", odd.DAMAGED)
def test_damaged_pixels_do_not_pass(image_processor, name):
    with pytest.raises(ImageError):
        load_image(odd.DAMAGED[name])
    with pytest.raises(OSError):
        image_processor().fetch_images([odd.DAMAGED[name]])


def test_texts_are_told_by_script_as_the_package_tells_them():
    from ape_jax.align.languages import Languages
    from ape_jax.data.languages.spoken import scripts_of
    from ape_jax.exporters.shipped import processing_ape

    texts = [
        "a cat",
        "кошка",
        "ネコ",
        "かわいい猫",
        "猫",
        "고양이",
        "قطة",
        "7 !",
        "",
        "aж",
        "жa",
        "Ⅷ ½",
    ]
    assert [processing_ape.script(text) for text in texts] == scripts_of(texts)
    known = Languages(names=(("en", 1), ("ru", 2)), scripts=(("Latin", 3), ("Hangul", 2)), count=4)
    for language in (None, "ru", ["en", "xx"] * 6):
        rows = processing_ape.language_rows(texts, known.record, language)
        assert rows == known.rows(texts, language).tolist()
    with pytest.raises(ValueError, match="found 1 languages for 12 texts"):
        processing_ape.language_rows(texts, known.record, ["en"])
