"""Small files whose headers ask for many pixels: refused by the header, whatever the format."""

import json
import struct
import subprocess
import sys

import pytest

from ape_jax.images.decode import ImageError, load_image
from ape_jax.images.formats import FORMATS
from tests.images.odd import encode
from tests.images.test_decode import png_header

# More than Pillow takes, and what Pillow takes and is too much here. GIF and JPEG have 16 bits a
# side, WebP 14.
SIDES = {"vast": {"WEBP": 16_383}, "large": dict.fromkeys(FORMATS, 9_000)}

MEASURE = """
import json, resource, sys
from ape_jax.images.decode import ImageError, load_image
load_image(sys.argv[1])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        load_image(path)
    except ImageError:
        pass
print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024))
"""


def where(format, data):
    """Offsets of width and height in a header, each with its format."""
    if format == "GIF":
        return [(6, "<2H")]
    if format == "BMP":
        return [(18, "<2i")]
    if format == "WEBP":
        return [(26, "<2H")]
    if format == "TIFF":
        return [(18, "<I"), (30, "<I")]
    if format == "JPEG":
        return [(data.index(b"\xff\xc0") + 5, ">2H")]
    if format == "AVIF":
        return [(data.index(b"ispe") + 8, ">2I")]
    return [(data.index(b"ihdr") + 4, ">2I"), (data.index(b"\xff\x4f\xff\x51") + 8, ">2I")]


def sized(format, side):
    """A file of a small picture whose header says `side` x `side`."""
    if format == "PNG":
        return png_header(side, side)
    data = bytearray(encode(format))
    if format == "PPM":
        return bytes(data).replace(b"48 32", b"%d %d" % (side, side), 1)
    for at, kind in where(format, bytes(data)):
        struct.pack_into(
            kind, data, at, *[side] * (struct.calcsize(kind) // struct.calcsize(kind[-1:]))
        )
    return bytes(data)


CASES = [(format, size) for format in FORMATS for size in SIDES]


def bomb(format, size):
    return sized(format, SIDES[size].get(format, 60_000))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("format", "size"), CASES)
def test_the_header_of_a_bomb_is_refused_in_one_sentence(format, size):
    # The decoder of AVIF refuses what is vast before Pillow knows its size.
    words = "header" if (format, size) == ("AVIF", "vast") else "pixels"
    with pytest.raises(ImageError, match=words) as error:
        load_image(bomb(format, size))
    assert "\n" not in str(error.value)


def test_bombs_take_no_memory(tmp_path):
    paths = [tmp_path / "good.png", *(tmp_path / f"{f}-{s}" for f, s in CASES)]
    paths[0].write_bytes(encode("PNG"))
    for path, case in zip(paths[1:], CASES, strict=True):
        path.write_bytes(bomb(*case))
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) < 48, "MB; the smallest of them decodes to 243"
