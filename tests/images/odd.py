"""Images with odd metadata and good pixels, and images with damaged pixels."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIZE = (48, 32)


def picture(seed=0):
    """A smooth picture, so that JPEG keeps it, with some detail everywhere."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    noise = np.random.default_rng(seed).integers(0, 40, (SIZE[1], SIZE[0], 3))
    return (np.stack([x * 4, y * 6, x + y], -1) + noise).astype(np.uint8)


def encode(format, image=None, **options):
    out = io.BytesIO()
    (image or Image.fromarray(picture())).save(out, format, **options)
    return out.getvalue()


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def chunk(kind, body=b"", *, wrong=False):
    checksum = zlib.crc32(kind + body) ^ (1 if wrong else 0)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(*chunks, after=b""):
    """A PNG with further chunks behind its header, and `after` behind its pixels."""
    data = encode("PNG")
    return data[:33] + b"".join(chunks) + data[33:-12] + after + data[-12:]


def segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(*segments, keep=None, **options):
    """A JPEG with further segments behind its first mark; `keep` cuts it."""
    data = encode("JPEG", quality=95, **options)
    return (data[:2] + b"".join(segments) + data[2:])[:keep]


def exif(*entries, order="<", follow=0):
    """TIFF directory as EXIF has it: (tag, type, count, four bytes of value or offset)."""
    directory = struct.pack(order + "H", len(entries)) + b"".join(
        struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + directory + struct.pack(order + "I", follow) + struct.pack("<iiI", -1, 0, 0)


TURN = (0x0112, 3, 1, struct.pack("<HH", 6, 0))


def behind(count):
    """Offset of what `exif` puts behind so many entries: the rational -1/0."""
    return struct.pack("<I", 8 + 2 + 12 * count + 4)


ODD = exif(TURN, (0x011A, 10, 1, behind(2)))
DATE = exif(TURN, (0x0132, 5, 1, behind(2)))
CYCLE = exif(TURN, (0x8769, 4, 1, struct.pack("<I", 8)), (0x8825, 4, 1, struct.pack("<I", 8)),
             follow=8)  # fmt: skip
BEYOND = exif(TURN, (0x8769, 4, 1, b"\xff\xff\xff\x7f"), (0x010F, 2, 2**31, b"\xff\xff\xff\x7f"))
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
BOMB = zlib.compress(bytes(64 * 2**20), 9)


def app1(body):
    return segment(0xE1, b"Exif\0\0" + body)


TEXT = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000)))
APNG = encode("PNG", save_all=True, append_images=[Image.fromarray(picture(1))])

PNGS = {
    "wrong checksum of a text": (png(chunk(b"tEXt", b"a\0b", wrong=True)), 0),
    "wrong checksum of the gamma": (png(chunk(b"gAMA", b"\0\1\2\3", wrong=True)), 0),
    "wrong checksum of the density": (png(chunk(b"pHYs", bytes(9), wrong=True)), 0),
    "wrong checksum of the time": (png(chunk(b"tIME", bytes(7), wrong=True)), 0),
    "wrong checksum of a private chunk": (png(chunk(b"prVt", b"abc", wrong=True)), 0),
    "wrong checksum of the EXIF": (png(chunk(b"eXIf", exif(TURN), wrong=True)), 6),
    "empty gamma": (png(chunk(b"gAMA")), 0),
    "density of one byte": (png(chunk(b"pHYs", b"a")), 0),
    "empty profile": (png(chunk(b"iCCP")), 0),
    "profile of an unknown compression": (png(chunk(b"iCCP", b"a\0\7abc")), 0),
    "profile above the limit": (png(chunk(b"iCCP", b"a\0\0" + BOMB)), 0),
    "text above the limit": (png(chunk(b"zTXt", b"a\0\0" + BOMB)), 0),
    "text above the limit, behind": (png(after=chunk(b"zTXt", b"a\0\0" + BOMB)), 0),
    "text above the limit, turned": (png(chunk(b"zTXt", b"a\0\0" + BOMB),
                                         chunk(b"eXIf", exif(TURN))), 6),
    "text that is not compressed as it says": (png(chunk(b"zTXt", b"a\0\7abc")), 0),
    "damaged compressed text": (png(chunk(b"zTXt", b"a\0\0abc")), 0),
    "text of other than UTF-8": (png(chunk(b"iTXt", b"a\0\0\0\0\0\xff\xfe\xfd")), 0),
    "XMP and a wrong checksum": (png(chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP),
                                     chunk(b"tIME", bytes(7), wrong=True)), 6),
    "XMP alone": (png(chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP)), 6),
    "EXIF with a rational -1/0": (png(chunk(b"eXIf", ODD)), 6),
    "EXIF in a circle": (png(chunk(b"eXIf", CYCLE)), 6),
    "an animation of no frames": (png(chunk(b"acTL", bytes(8))), 0),
    "an animation of odd control": (png(chunk(b"acTL", struct.pack(">II", 2, 0)),
                                        chunk(b"fcTL", bytes(26))), 0),
    "international text above the limit": (png(chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)), 0),
    "the same behind the pixels": (png(after=chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)), 0),
    "many texts that are large together": (png(*[TEXT] * 80), 0),
    "texts of nothing": (png(chunk(b"tEXt"), chunk(b"iTXt"), chunk(b"zTXt")), 0),
    "short primaries": (png(chunk(b"cHRM", b"abc")), 0),
    "EXIF of nothing": (png(chunk(b"eXIf")), 0),
    "EXIF behind the pixels": (png(after=chunk(b"eXIf", ODD)), 6),
    "a private chunk of 3 MB": (png(chunk(b"prVt", bytes(3 * 2**20))), 0),
    "a chunk whose name is no text": (png(chunk(b"\xff\xfe\xfd\xfc", b"x")), 0),
    "an animation": (APNG, 0),
    "an animation, wrong checksum of its control": (flipped(APNG, APNG.index(b"acTL") + 6), 0),
    "an animation, wrong checksum of a frame's": (flipped(APNG, APNG.index(b"fcTL") + 20), 0),
    "an animation, a damaged second frame": (flipped(APNG, APNG.index(b"fdAT") + 9), 0),
    "an animation out of order": (APNG.replace(b"fcTL\0\0\0\0", b"fcTL\0\0\0\7"), 0),
    "something behind the end": (encode("PNG") + b"junk" * 100, 0),
    "no end": (encode("PNG")[:-12], 0),
    "a cut end": (encode("PNG")[:-5], 0),
}  # fmt: skip

JPEGS = {
    "rational -1/0": (jpeg(app1(ODD)), 6),
    "rational as a date": (jpeg(app1(DATE)), 6),
    "directories in a circle": (jpeg(app1(CYCLE)), 6),
    "offsets beyond the end": (jpeg(app1(BEYOND)), 6),
    "big-endian": (jpeg(app1(exif((0x0112, 3, 1, b"\0\6\0\0"), order=">"))), 6),
    "orientation 0": (jpeg(app1(exif((0x0112, 3, 1, bytes(4))))), 0),
    "orientation 9": (jpeg(app1(exif((0x0112, 3, 1, b"\x09\0\0\0")))), 0),
    "orientation as a text": (jpeg(app1(exif((0x0112, 2, 2, b"6\0\0\0")))), 0),
    "orientation twice": (jpeg(app1(exif((0x0112, 3, 2, b"\6\0\6\0")))), 6),
    "EXIF of one byte": (jpeg(app1(b"I")), 0),
    "EXIF that is none": (jpeg(app1(b"\xff" * 40)), 0),
    "cut EXIF": (jpeg(app1(exif(TURN, TURN)[:24])), 6),
    "XMP alone": (jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)), 6),
    "short JFIF": (jpeg(segment(0xE0, b"JFIF\0")), 0),
    "short Adobe": (jpeg(segment(0xEE, b"Adobe")), 0),
    "short profile": (jpeg(segment(0xE2, b"ICC_PROFILE\0")), 0),
    "odd list of images": (jpeg(segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0abc")), 0),
    "odd Photoshop": (jpeg(segment(0xED, b"Photoshop 3.0\x008BIM\3\xed")), 0),
    "short JFIF, turned": (jpeg(segment(0xE0, b"JFIF\0"), app1(ODD)), 6),
    "odd resources of Photoshop": (jpeg(segment(0xED, b"Photoshop 3.0\x008BIM\4\4\5abc")), 0),
    "a comment that is no text": (jpeg(segment(0xFE, b"\xff\xfe\xfd")), 0),
    "a thumbnail beyond the end": (
        jpeg(
            app1(exif(TURN, (0x0201, 4, 1, b"\xff\xff\xff\x7f"), (0x0202, 4, 1, b"\xff\xff\0\0")))
        ),
        6,
    ),
    "a profile that is none": (jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1" + b"bad" * 99)), 0),
    "a profile of which parts are missing": (jpeg(segment(0xE2, b"ICC_PROFILE\0\1\3bad")), 0),
    "something behind the end": (jpeg() + b"junk" * 100, 0),
    "no end": (jpeg(keep=-2), 0),
    "half an end": (jpeg(keep=-1), 0),
    "no end, zeros instead": (jpeg(keep=-2) + bytes(5000), 0),
    "no end, turned": (jpeg(app1(ODD), keep=-2), 6),
    "no end, progressive": (jpeg(keep=-2, progressive=True), 0),
    "no end, restarts": (jpeg(keep=-2, restart_marker_rows=1), 0),
    "no end, restarts in every block": (jpeg(keep=-2, restart_marker_blocks=1), 0),
}


def tiff(*entries):
    """A TIFF whose directory has these further entries, in their order."""
    data = encode("TIFF")
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    found = [data[start + 2 + 12 * i :][:12] for i in range(count)]
    found += [struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries]
    found.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    end = len(data)
    directory = struct.pack("<H", len(found)) + b"".join(found) + bytes(4)
    return data[:4] + struct.pack("<I", end) + data[8:] + directory


MPO = encode("MPO", quality=95, save_all=True, append_images=[Image.new("RGB", SIZE)])
AVIF = encode("AVIF", quality=100, exif=exif(TURN, (0x010F, 2, 2, b"a\0\0\0")))
WEBP = encode("WEBP", lossless=True, exif=ODD, icc_profile=b"abc" * 50)
CMYK = encode("JPEG", Image.fromarray(picture()).convert("CMYK"), quality=95)
PROFILE = segment(0xE2, b"ICC_PROFILE\0\1\1" + b"bad" * 99)


def announced(data, size):
    """A WebP that says another size of its own."""
    return data[:4] + struct.pack("<I", len(data) - 8 + size) + data[8:]


OTHERS = {
    "CMYK, a profile that is none": (CMYK[:2] + PROFILE + CMYK[2:], 0),
    "CMYK, the same without end": (CMYK[:2] + PROFILE + CMYK[2:-2], 0),
    "WebP, a profile that is none": (WEBP, 6),
    "WebP, larger than it is": (announced(WEBP, 100), 6),
    "WebP, smaller than it is": (announced(WEBP, -12), 6),
    "WebP, cut EXIF": (WEBP[:-12], 6),
    "WebP, something behind": (WEBP + b"junk" * 100, 6),
    "TIFF, a rational as date beyond the end": (tiff(TURN, (0x0132, 5, 1, b"\xff\xff\xff\x7f")), 6),
    "TIFF, profile beyond the end": (tiff(TURN, (0x8773, 7, 5000, b"\xff\xff\xff\x7f")), 6),
    "TIFF, XMP beyond the end": (tiff(TURN, (700, 1, 5000, b"\xff\xff\xff\x7f")), 6),
    "TIFF, a tag of no type": (tiff(TURN, (0x010F, 99, 1, b"abcd")), 6),
    "AVIF, a profile that is none": (encode("AVIF", quality=100, icc_profile=b"junk" * 40), 0),
    "AVIF, XMP that is none": (encode("AVIF", quality=100, xmp=b"\xff\xfe" * 40), 0),
    "PPM, a comment that is no text": (b"P6 # \xff\xfe\n48 32\n255\n" + picture().tobytes(), 0),
    "MPO": (MPO, 0),
    "MPO, turned": (MPO[:2] + app1(ODD) + MPO[2:], 6),
    "WebP, odd EXIF": (encode("WEBP", lossless=True, exif=ODD), 6),
    "WebP, no EXIF": (encode("WEBP", lossless=True, exif=b"\xff" * 30), 0),
    "WebP, XMP alone": (encode("WEBP", lossless=True, xmp=XMP), 6),
    "GIF without end": (encode("GIF")[:-1], 0),
    "TIFF, turned": (tiff(TURN), 6),
    "TIFF, EXIF in a circle": (tiff(TURN, (0x8769, 4, 1, struct.pack("<I", 8))), 6),
    "TIFF, GPS beyond the end": (tiff(TURN, (0x8825, 4, 1, b"\xff\xff\xff\x7f")), 6),
    "TIFF, text as EXIF": (tiff(TURN, (0x8769, 2, 3, b"ab\0\0")), 6),
    "TIFF, odd resolution": (tiff((0x0128, 2, 3, b"ab\0\0")), 0),
    "AVIF, turned": (AVIF, 6),
    "AVIF, damaged EXIF": (AVIF.replace(b"II*\0", b"\xff" * 4), 6),
}  # fmt: skip


def palette():
    return Image.fromarray(picture()).quantize(16)


PALETTE = encode("PNG", palette(), transparency=3)
WHOLE, STEPS = jpeg(), jpeg(progressive=True)
ROWS, BLOCKS = jpeg(restart_marker_rows=1), jpeg(restart_marker_blocks=1)
DAMAGED = {
    "checksum of pixels": flipped(encode("PNG"), encode("PNG").index(b"IEND") - 5),
    "a bit of the pixels": flipped(encode("PNG"), 900),
    "checksum of the palette": flipped(PALETTE, PALETTE.index(b"PLTE") + 7),
    "checksum of the transparent colours": flipped(PALETTE, PALETTE.index(b"tRNS") + 5),
    "pixels and a text": flipped(png(chunk(b"tEXt", b"a\0b", wrong=True)), 900),
    "cut WebP": WEBP[:200],
    "cut WebP that says so": announced(WEBP[:200], 0),
    "cut PNG": encode("PNG")[:-200],
    "cut PNG with odd text": png(chunk(b"tEXt", b"a\0b", wrong=True))[:-200],
    "cut JPEG": WHOLE[:-40],
    "cut JPEG, ten bytes": WHOLE[:-10],
    "cut JPEG, zeros behind": WHOLE[: len(WHOLE) // 2] + bytes(5000),
    "cut JPEG, text behind": WHOLE[: len(WHOLE) // 2] + b"<html>error</html>" * 500,
    "cut JPEG with odd EXIF": jpeg(app1(ODD), keep=-40),
    "a JPEG of one scan of several": STEPS[
        : STEPS.index(b"\xff\xda", STEPS.index(b"\xff\xda") + 9)
    ],
    "cut progressive JPEG": STEPS[:-10],
    "a last scan that is missing": STEPS[: STEPS.rindex(b"\xff\xda")],
    "cut at a restart": ROWS[: ROWS.rindex(b"\xff\xd0")],
    "cut behind a restart": ROWS[: ROWS.rindex(b"\xff\xd0") + 2],
    "cut among many restarts": BLOCKS[: BLOCKS.rindex(b"\xff\xd1")],
    "no pixels": WHOLE[: WHOLE.index(b"\xff\xda") + 14],
    "no scan": WHOLE[: WHOLE.index(b"\xff\xda")],
}

GOOD = {**PNGS, **JPEGS, **OTHERS}
