"""Turns an image as its EXIF or XMP says."""

from __future__ import annotations

from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image) -> Image.Image:
    """Applies the orientation of an image, as `PIL.ImageOps.exif_transpose` does.

    That function also writes the EXIF anew, and fails where a tag cannot be written; metadata that
    cannot be read at all turns nothing here.

    Args:
      image: an image, loaded or not.

    Returns:
      The image itself where nothing is to be turned.
    """
    image.load()  # First: some formats turn their pixels while they are read, and say so in EXIF.
    try:
        method = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Metadata of any content make Pillow raise nearly anything.
        return image
    return image if method is None else image.transpose(method)
