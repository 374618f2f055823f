"""load_image: every format and mode to RGB, and every kind of broken file to one sentence."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ape_jax.images.decode import ImageError, ImageRef, load_image
from ape_jax.images.formats import FORMATS, HEAD, IMAGE_ENDINGS, is_image_content

RED = (255, 0, 0)


def encode(image: Image.Image, format: str = "PNG", **kwargs) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **kwargs)
    return out.getvalue()


def gradient(height: int = 20, width: int = 30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 12, x + y], -1).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(head))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0)
        + b"IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


@pytest.mark.parametrize("format", [*FORMATS, "MPO"])
def test_formats(format):
    image = Image.fromarray(gradient())
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(format, {})
    data = encode(image, format, **lossless)
    got = load_image(data)
    assert got.shape == (20, 30, 3) and got.dtype == np.uint8
    if format in ("PNG", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM"):
        np.testing.assert_array_equal(got, gradient())
    else:
        np.testing.assert_allclose(got.mean((0, 1)), gradient().mean((0, 1)), atol=8)
    assert is_image_content(data[:HEAD]) == (format not in ("BMP", "TIFF", "PPM"))


def test_the_endings_are_those_that_pillow_knows():
    Image.init()
    read = {*FORMATS, "MPO"}
    assert {Image.EXTENSION[ending] for ending in IMAGE_ENDINGS} == read


@pytest.mark.parametrize("kind", [str, "path", bytes, bytearray, np.ndarray, Image.Image, ImageRef])
def test_kinds_of_reference(kind, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(gradient()).save(path)
    ref = {
        str: str(path),
        "path": path,
        bytes: path.read_bytes(),
        bytearray: bytearray(path.read_bytes()),
        np.ndarray: gradient(),
        Image.Image: Image.open(path),
        ImageRef: ImageRef(path.read_bytes, "lazily read"),
    }[kind]
    np.testing.assert_array_equal(load_image(ref), gradient())


def _transparent(mode: str) -> Image.Image:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, :, 0] = 255
    rgba[:2, :, 3] = 255  # The upper half is opaque red, the lower transparent.
    image = Image.fromarray(rgba)
    if mode == "P":
        return image.quantize(8)
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
def test_transparency_shows_the_background(mode):
    got = load_image(encode(_transparent(mode)), background=(0, 0, 255))
    np.testing.assert_array_equal(got[3, 0], (0, 0, 255))
    expected = RED if mode != "LA" else (76, 76, 76)
    np.testing.assert_allclose(got[0, 0], expected, atol=1)


def test_half_transparency_is_composited():
    rgba = np.full((2, 2, 4), 0, np.uint8)
    rgba[..., 3] = 128
    np.testing.assert_allclose(load_image(rgba), 127, atol=1)


def test_transparent_gif_shows_the_background():
    data = encode(_transparent("P"), "GIF", transparency=_transparent("P").getpixel((0, 3)))
    np.testing.assert_array_equal(load_image(data)[3, 0], (255, 255, 255))


def test_transparent_colour_of_a_grey_png():
    image = Image.fromarray(np.uint8([[7, 9]]))
    got = load_image(encode(image, transparency=7), background=RED)
    np.testing.assert_array_equal(got[0], [RED, (9, 9, 9)])


def test_sixteen_bit_grey_is_scaled_not_clipped():
    wide = np.uint16([[0, 257, 32896, 65535]])
    got = load_image(encode(Image.fromarray(wide)))
    np.testing.assert_array_equal(got[0, :, 0], [0, 1, 128, 255])


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr", "P"])
def test_modes_as_pillow_converts_them(mode):
    image = Image.fromarray(gradient()).convert(mode)
    format = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    reread = Image.open(io.BytesIO(encode(image, format)))
    np.testing.assert_array_equal(
        load_image(encode(image, format)), np.asarray(reread.convert("RGB"))
    )


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # Rotate by 90 degrees clockwise to show.
    image = Image.fromarray(gradient())
    got = load_image(encode(image, "PNG", exif=exif))
    np.testing.assert_array_equal(got, np.rot90(gradient(), -1))


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), c) for c in (RED, (0, 255, 0))]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(load_image(data)[0, 0], RED)


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "a")
    return out.getvalue()


def _small_box() -> bytes:
    data = encode(Image.fromarray(gradient(64, 64)), "JPEG2000")
    at = data.index(b"ihdr") + 4
    return data[:at] + struct.pack(">II", 8, 8) + data[at + 8 :]


PNG = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
JPEG = encode(Image.fromarray(gradient(64, 64)), "JPEG")
BAD = {
    "truncated png": (PNG[: len(PNG) // 2], "damaged"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "damaged"),
    "png cut in its header": (PNG[:20], "damaged"),
    "corrupt png data": (PNG[:100] + b"\0" * 50 + PNG[150:], "damaged"),
    "huge header": (png_header(60000, 60000), "pixels"),
    "header over our limit only": (png_header(9000, 9000), "pixels"),
    "very long": (png_header(1, 100_000), "256 : 1"),
    "zero width": (png_header(0, 10), ""),
    "zip": (_zip(), "formats"),
    "text": (b"not an image", "formats"),
    "empty": (b"", "empty"),
    "tga is not whitelisted": (encode(Image.fromarray(gradient()), "TGA"), "formats"),
    "a codestream larger than its box says": (_small_box(), "damaged"),
    "eps is not whitelisted": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "formats"),
    "float tiff": (encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "float"),
    "32-bit tiff": (encode(Image.fromarray(np.full((2, 2), 99999, np.int32)), "TIFF"), "32-bit"),
    "float array": (np.zeros((2, 2, 3)), "uint8"),
    "grey array": (np.zeros((2, 2), np.uint8), "uint8"),
    "empty array": (np.zeros((0, 2, 3), np.uint8), "no pixels"),
    "missing file": ("/nowhere/cat.png", "no such file"),
    "path with NUL": ("a\0b.png", "no such file"),
    "directory": ("/", "directory"),
    "device": ("/dev/null", "regular"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_one_sentence_with_a_name(name):
    content, expected = BAD[name]
    with pytest.raises(ImageError) as error:
        load_image(ImageRef(content, "pairs.jsonl:12 (cat.png)"))
    message = str(error.value)
    assert "pairs.jsonl:12 (cat.png)" in message and expected in message and "\n" not in message


@pytest.mark.usefixtures("unchecked")
def test_unknown_kind_of_reference():
    with pytest.raises(ImageError, match="found int"):
        load_image(3)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=64), st.integers(0, len(PNG)), st.sampled_from([PNG, JPEG]))
def test_damaged_bytes_never_raise_anything_else(junk, at, whole):
    data = whole[:at] + junk + whole[at + len(junk) :]
    try:
        assert load_image(data).dtype == np.uint8
    except ImageError as e:
        assert "\n" not in str(e)
