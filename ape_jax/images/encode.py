"""Images in memory as they are stored: encoded bytes, or the path of a file."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from ape_jax.images.decode import ImageError, ImageRef, check_encoded, load_image, read_encoded
from ape_jax.images.orientation import upright

# What PNG holds, and reads back, as it is.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def stored(image: Any, name: str) -> dict[str, Any]:
    """An image as Hugging Face's data sets store it: `{"bytes": ..., "path": ...}`, one is None.

    A path becomes absolute, bytes stay as they are, pixels become a PNG of the same pixels. An
    image that Pillow has opened and not read yet is the file that it was opened from.

    Args:
      image: a path, encoded bytes, a PIL image, a uint8 array [H, W, 3 or 4], or such a dictionary.
      name: what to call it in messages.

    Raises:
      ImageError: for anything else, or an image that is empty, too large or damaged.
    """
    if isinstance(image, Mapping):
        image = image["path"] if image.get("bytes") is None else image["bytes"]
    if isinstance(image, ImageFile.ImageFile) and image.tile and isinstance(image.filename, str):
        image = image.filename or image
    if isinstance(image, str | os.PathLike):
        path = os.path.abspath(os.path.expanduser(os.fspath(image)))
        check_encoded(path, f"{name} ({os.fspath(image)[:200]})")
        if path.isprintable():
            return {"bytes": None, "path": path}
        image = read_encoded(path, name)  # A name that is no Unicode cannot be stored.
    if isinstance(image, bytes | bytearray | memoryview):
        content = bytes(image)
        check_encoded(content, name)
        return {"bytes": content, "path": None}
    if isinstance(image, np.ndarray):
        load_image(ImageRef(image, name))  # Raises what is wrong with it.
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise ImageError(
            f"{name}: an image must be a path, bytes, a uint8 array or a PIL image, found "
            f"{type(image).__name__}; open or decode it first"
        )
    return {"bytes": _png(image, name), "path": None}


def _png(image: Image.Image, name: str) -> bytes:
    file = io.BytesIO()
    _storable(image, name).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _storable(image: Image.Image, name: str) -> Image.Image:
    if image.mode in _PNG_MODES:
        try:
            return upright(image)
        except Exception:  # Of a damaged file, or of odd metadata, which do not matter.
            pass
    try:
        return Image.fromarray(load_image(image))
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
