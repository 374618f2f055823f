"""Cuts an encoded image down to what its pixels depend on.

Pillow reads all metadata of a file, and refuses the file if some of it is odd: a text above its
limit, a wrong checksum of a comment, a rational without a denominator. What is returned here holds
the pixels, EXIF and XMP apart, and nothing else; no text or profile is decompressed.

Exports hold a copy of this file, which therefore imports nothing of the package.
"""

from __future__ import annotations

import dataclasses
import io
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
# tRNS may be skipped by its class, yet it says which pixels are transparent.
_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_XMP_KEY = b"XML:com.adobe.xmp\0\0\0\0\0"  # Uncompressed, no language, no translated key.
_WEBP_KEPT = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_WEBP_INFO = {b"EXIF": "exif", b"XMP ": "xmp"}
_WEBP_METADATA = 0x2C  # The flags that say of a profile, EXIF and XMP.
# Tags of a TIFF that say where its pixels are and how they are to be read.
_TAGS = {
    254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323,
    324, 325, 332, 338, 339, 347, 530, 532,
}  # fmt: skip
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_KEPT = {*_FRAMES, 0xC4, 0xCC, 0xDB, 0xDC, 0xDD}
_EXIF_ITEM = re.compile(rb"(infe.{8})Exif", re.DOTALL)
_SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_SPARE = 4  # Bytes behind the last pixel; an encoder writes none, a device perhaps one or two.
# What follows a JPEG's data in a test of whether they are complete. They begin differently, since a
# code that ends a block changes nothing.
_TAILS = [
    bytes((first + 91 * i + first * i * i) % 251 for i in range(2048))
    for first in (0xFA, 0xAA, 0x55, 0x7F, 0x33)
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Essential:
    """Pixels of an encoded image, without other metadata.

    Attributes:
      data: a file of the same format.
      info: EXIF and XMP by the names that Pillow has for them in `Image.info`.
    """

    data: bytes
    info: dict[str, bytes] = dataclasses.field(default_factory=dict)

    def open(self, formats: tuple[str, ...] | None = None) -> Image.Image:
        """Opens it; only EXIF and XMP, for the orientation, are in `info` of the image.

        Args:
          formats: Pillow's names of the formats that may be read; None for all.
        """
        image = Image.open(io.BytesIO(self.data), formats=formats)
        image.info.update(self.info)
        return image


def essential(data: bytes) -> Essential | None:
    """Leaves out what no pixel depends on; ends a JPEG of which only the end mark is missing.

    Args:
      data: an encoded image.

    Returns:
      None if the format is not PNG, JPEG, WebP, TIFF or AVIF, which alone have metadata that Pillow
      stumbles over, if its structure is damaged, or if pixels of a JPEG without end mark are
      missing.
    """
    try:
        if data.startswith(_PNG):
            return _of_png(data)
        if data.startswith(b"\xff\xd8"):
            return _Jpeg(data).essential()
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _of_webp(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _of_tiff(data)
        if data[4:8] == b"ftyp":  # AVIF says in its own way how it is turned.
            return Essential(data=_EXIF_ITEM.sub(rb"\1none", data))
    except Exception:  # Its structure is cut, or any other; the caller says what Pillow says.
        return None
    return None


def is_damaged(data: bytes) -> bool:
    """Returns whether pixels are damaged in a way that Pillow does not notice.

    That is a wrong checksum in a PNG, and a JPEG without end mark in which something else is read
    in place of the pixels that are missing.
    """
    if data.startswith(b"\xff\xd8"):
        return not data.endswith(b"\xff\xd9") and essential(data) is None
    return data.startswith(_PNG) and any(
        kind == b"IDAT" and len(chunk) >= 12 and zlib.crc32(chunk[4:-4]) != _big(chunk[-4:])
        for kind, chunk in _chunks(data)
        if len(chunk) == 12 + _big(chunk[:4])
    )


def _big(data: bytes | memoryview) -> int:
    return int.from_bytes(data, "big")


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, start = memoryview(data), len(_PNG)
    while start + 8 <= len(data):
        end = start + 12 + _big(view[start : start + 4])
        kind = bytes(view[start + 4 : start + 8])
        yield kind, view[start:end]
        if kind == b"IEND":
            return
        start = end


def _of_png(data: bytes) -> Essential:
    kept, info = [_PNG], {}
    for kind, chunk in _chunks(data):
        if kind in _CHUNKS:
            kept.append(bytes(chunk))
        elif kind == b"eXIf":
            info["exif"] = b"Exif\0\0" + bytes(chunk[8:-4])
        elif kind == b"iTXt" and chunk[8 : 8 + len(_XMP_KEY)] == _XMP_KEY:
            info["xmp"] = bytes(chunk[8 + len(_XMP_KEY) : -4])
    return Essential(data=b"".join(kept), info=info)


def _of_webp(data: bytes) -> Essential:
    """A WebP of the chunks with pixels, of the size that they have and not that it says."""
    kept, info, at = [], {}, 12
    while at + 8 <= len(data):
        kind, (size,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        body, at = data[at + 8 : at + 8 + size], at + 8 + size + size % 2
        if kind == b"VP8X":
            body = bytes([body[0] & ~_WEBP_METADATA]) + body[1:]
        if kind in _WEBP_KEPT:
            if len(body) < size:
                raise ValueError("a chunk is cut")
            kept.append(kind + struct.pack("<I", size) + body + bytes(size % 2))
        elif kind in _WEBP_INFO:
            info[_WEBP_INFO[kind]] = body
    content = b"WEBP" + b"".join(kept)
    return Essential(data=b"RIFF" + struct.pack("<I", len(content)) + content, info=info)


def _of_tiff(data: bytes) -> Essential:
    """A TIFF with a second directory behind everything, of which only the offset is elsewhere."""
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    kept = [e for e in entries if struct.unpack_from(order + "H", e)[0] in _TAGS]
    where = len(data) + len(data) % 2
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    head = data[:4] + struct.pack(order + "I", where)
    return Essential(data=head + data[8:] + bytes(where - len(data)) + directory)


class _Jpeg:
    """The segments of a JPEG that matter, and what its scans hold."""

    def __init__(self, data: bytes):
        self.kept, self.info, self.ended = [b"\xff\xd8"], {}, False
        self.size, self.parts, self.interval = (0, 0), {}, 0
        # By component and coefficient, how many of the low bits are still missing.
        self.missing: dict[tuple[int, int], int] = {}
        self.restarts_missing = False
        at = 2
        while (at := data.find(b"\xff", at)) >= 0:
            while data[at] == 0xFF:
                at += 1
            marker, at = data[at], at + 1
            if marker == 0xD9:
                self.ended = True
                return
            if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
                continue
            end = at + _big(data[at : at + 2])
            body = data[at + 2 : end]
            if len(data) < end:
                raise ValueError("a segment is cut")
            self._segment(marker, data[at:end], body)
            at = end
            if marker == 0xDA:
                found = _SCAN_END.search(data, at)
                self._scan(body, data[at : found.start() if found else len(data)])
                at = found.start() if found else len(data)

    def _segment(self, marker: int, whole: bytes, body: bytes) -> None:
        if marker in _FRAMES:
            self.size = struct.unpack(">HH", body[1:5])
            self.parts = {body[i]: divmod(body[i + 1], 16) for i in range(6, len(body), 3)}
            self.missing = {(part, k): 99 for part in self.parts for k in range(64)}
        elif marker == 0xDD:
            self.interval = _big(body[:2])
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            self.info["exif"] = self.info.get("exif", b"Exif\0\0") + body[6:]
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            self.info["xmp"] = body.split(b"\0", 1)[1]
        # Both say what the components mean.
        jfif = marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14
        adobe = marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
        if marker in _JPEG_KEPT or marker == 0xDA or jfif or adobe:
            self.kept += [bytes((0xFF, marker)), whole]

    def _scan(self, body: bytes, entropy: bytes) -> None:
        parts = [body[1 + 2 * i] for i in range(body[0])]
        first, last, bits = body[-3:]
        for part in parts:
            for k in range(first, last + 1):
                self.missing[part, k] = bits & 15
        if self.interval:
            wanted = -(-self._units(parts) // self.interval) - 1
            self.restarts_missing |= len(_RESTART.findall(entropy)) < wanted
        self.kept.append(entropy)

    def _units(self, parts: list[int]) -> int:
        """Number of coded units of a scan: blocks of one component, or groups of several."""
        height, width = self.size
        across, down = (max(sizes) for sizes in zip(*self.parts.values()))
        if len(parts) > 1:
            return -(-width // (8 * across)) * -(-height // (8 * down))
        h, v = self.parts[parts[0]]
        return -(-width * h // (8 * across)) * -(-height * v // (8 * down))

    def essential(self) -> Essential | None:
        data = b"".join(self.kept)
        if self.ended:
            return Essential(data=data + b"\xff\xd9", info=self.info)
        if self.restarts_missing or any(self.missing.values()) or not self.missing:
            return None
        # Zeros behind the data are space that was set aside; one may belong to an FF.
        data = data.rstrip(b"\0")
        data += b"\0" if data.endswith(b"\xff") else b""
        if _reads_on(data):
            return None
        # A cut scan that something else follows, which is long enough to be read as the rest of it.
        scan = len(self.kept[-1])
        if scan > _SPARE and not self.interval and not _reads_on(data[:-_SPARE]):
            return None
        return Essential(data=data + b"\xff\xd9", info=self.info)


def _reads_on(data: bytes) -> bool:
    """Whether the last scan is cut: then what follows is read as pixels, or zeros at the end."""
    pixels = None
    for tail in (b"", *_TAILS):
        with Image.open(io.BytesIO(data + tail + b"\xff\xd9"), formats=["JPEG"]) as image:
            found = np.asarray(image)
        if pixels is not None and not np.array_equal(pixels, found):
            return True
        pixels = found
    return False
