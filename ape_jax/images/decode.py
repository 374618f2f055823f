"""Decodes images (a path, bytes, an array) to `uint8 [H, W, 3]`.

Files are not trusted: the format must be one of `FORMATS`, the size is read from the header and
bounded before a single pixel is decoded, and whatever a broken file makes a decoder raise comes
out as one sentence that names the image. Metadata never refuses good pixels: where Pillow stumbles
over it, the image is decoded without.
"""

from __future__ import annotations

import dataclasses
import io
import os
import stat
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ape_jax.errors import UserError
from ape_jax.images.essential import essential, is_damaged
from ape_jax.images.formats import FORMATS, HEAD, is_image_content
from ape_jax.images.orientation import upright
from ape_jax.storage import files

MAX_PIXELS = 64 * 2**20
# Shortest-edge resizing multiplies the long edge: 1 x 10,000,000 pixels are few until then.
MAX_ASPECT = 256
MAX_BYTES = 512 * 2**20

Content = str | bytes | np.ndarray


class ImageError(UserError):
    """Error of an image that cannot be used; `on_error="skip"` skips these and no other errors.

    Attributes:
      kind: what it is counted as: "missing image", "damaged image".
    """

    def __init__(self, message: str, kind: str = "unsuitable image"):
        super().__init__(message)
        self.kind = kind


@dataclasses.dataclass(frozen=True, slots=True)
class ImageRef:
    """Reference to an image: where it is, and its name in messages.

    Attributes:
      source: a path, encoded bytes, an array `uint8 [H, W, 3 or 4]`, or a function that reads one
        of these when it is needed (a tar member, a record of a data set).
      name: what a user recognises, for instance `pairs.jsonl:12 (cat.png)`.
      nbytes: size of the encoded image where the source knows it without reading.
    """

    source: Content | Callable[[], Content]
    name: str
    nbytes: int | None = None

    @property
    def content(self) -> Content:
        """The path, the bytes or the array; reads them where `source` is a function."""
        return self.source() if callable(self.source) else self.source


Source = ImageRef | Image.Image | Content | bytearray | memoryview | os.PathLike


def load_image(
    ref: Source, *, background: tuple[int, int, int] = (255, 255, 255)
) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes an image to RGB, applies its EXIF orientation and fills in transparency.

    16-bit grey is scaled to 8 bits (as PNG defines it: v / 257, rounded), CMYK and palettes are
    converted as Pillow does, and of an animation the first frame is taken.

    Args:
      ref: a path, encoded bytes, `uint8 [H, W, 3 or 4]`, an open PIL image, or an `ImageRef`.
      background: RGB under transparent pixels.

    Returns:
      `uint8 [H, W, 3]`, C-contiguous.

    Raises:
      ImageError: the file is missing, empty, truncated, no image, of another format than `FORMATS`,
        larger than `MAX_PIXELS` or longer than `MAX_ASPECT` times its width; names the image.
    """
    name, content = _name_and_content(ref)
    if isinstance(content, np.ndarray):
        return _from_array(content, name, background)
    if isinstance(content, Image.Image):
        return _decode(content, name, background)
    check_encoded(content, name)
    if isinstance(content, str):
        content = read_encoded(content, name)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            pixels = _pixels(image, name, background)
        if is_damaged(content):
            raise SyntaxError("pixels are missing or their checksum is wrong")
        return pixels
    except ImageError:
        raise
    except Image.DecompressionBombError as e:
        raise _too_large(name, "more than 178 million") from e
    except Exception as e:  # OSError, SyntaxError, zlib.error, struct.error, ... by format.
        return _without_metadata(content, e, name, background)


def check_encoded(content: Content, name: str) -> int:
    """The size of an encoded image in bytes, without reading it.

    Raises:
      ImageError: there is no file, or it is empty, too large or no regular file.
    """
    if isinstance(content, np.ndarray):
        return content.nbytes
    if isinstance(content, bytes):
        size = len(content)
    else:
        try:
            status = os.stat(content)
        except (OSError, ValueError) as e:  # ValueError: a NUL byte in the path.
            raise ImageError(
                f"{name}: there is no such file; correct the path", "missing image"
            ) from e
        if not stat.S_ISREG(status.st_mode):
            found = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ImageError(
                f"{name}: this is {found}; write the path of an image file", "missing image"
            )
        size = status.st_size
    if size == 0:
        raise ImageError(
            f"{name}: the image is empty (0 bytes); replace it or remove it", "empty image"
        )
    if size > MAX_BYTES:
        raise ImageError(
            f"{name}: the image has {size} bytes, more than the limit of {MAX_BYTES}; shrink it",
            "too large image",
        )
    return size


def _name_and_content(ref: Source) -> tuple[str, Content | Image.Image]:
    if isinstance(ref, ImageRef):
        return ref.name, ref.content
    if isinstance(ref, os.PathLike):
        ref = os.fspath(ref)
    if isinstance(ref, str):
        return ref if ref.isprintable() else repr(ref), ref
    if isinstance(ref, bytes | bytearray | memoryview):
        return f"image of {len(ref)} bytes", bytes(ref)
    if isinstance(ref, np.ndarray):
        return f"array of shape {ref.shape}", ref
    if isinstance(ref, Image.Image):
        return getattr(ref, "filename", "") or f"PIL image of size {ref.size}", ref
    raise ImageError(
        f"An image must be a path, bytes, a uint8 array or a PIL image, found "
        f"{type(ref).__name__}; open or decode it first"
    )


def _from_array(
    array: np.ndarray, name: str, background: tuple[int, int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (3, 4):
        raise ImageError(
            f"{name}: an image array must be uint8 [H, W, 3 or 4], found "
            f"{array.dtype} {list(array.shape)}; convert it"
        )
    _check_size(array.shape[1], array.shape[0], name)
    if array.shape[-1] == 3:
        return np.ascontiguousarray(array)
    return _to_rgb(Image.fromarray(array), name, background)


def read_encoded(path: str, name: str) -> bytes:
    """The bytes of an image file; raises ImageError where it cannot be read."""
    try:
        return files.read_bytes(path, name, MAX_BYTES)
    except (FileNotFoundError, UserError) as e:
        raise ImageError(f"{e}; correct it", "missing image") from e


def _decode(
    image: Image.Image, name: str, background: tuple[int, int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes an image that someone else has opened."""
    try:
        return _pixels(image, name, background)
    except ImageError:
        raise
    except Exception as e:
        try:  # An image is read when it is first used; until then its file is open.
            file: Any = getattr(image, "fp", None)
            file.seek(0)
            content = file.read(MAX_BYTES)
        except Exception:
            raise _broken(name, e) from e
        return _without_metadata(content, e, name, background)


def _without_metadata(
    content: bytes, error: Exception, name: str, background: tuple[int, int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes what Pillow refuses, if what is wrong with it concerns no pixel.

    Raises:
      ImageError: it says `error`.
    """
    if (pixels_only := essential(content)) is not None and not is_damaged(content):
        try:
            with pixels_only.open(FORMATS) as image:
                return _pixels(image, name, background)
        except ImageError:
            raise
        except Exception:
            pass  # The pixels are damaged as well, and `error` says how.
    if isinstance(error, Image.UnidentifiedImageError):
        if is_image_content(content[:HEAD]):
            error = SyntaxError("its header cannot be read")
        else:
            raise ImageError(
                f"{name}: this is not an image in one of the formats {', '.join(FORMATS)}; "
                "convert it or remove it",
                "not an image",
            ) from error
    raise _broken(name, error) from error


def _pixels(
    image: Image.Image, name: str, background: tuple[int, int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    _check_size(*image.size, name)
    return _to_rgb(upright(image), name, background)


def _to_rgb(
    image: Image.Image, name: str, background: tuple[int, int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode == "F":
        raise ImageError(f"{name}: 32-bit float pixels have no known range; save it with 8 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Image.convert clips these to 255 instead of scaling them: a white image.
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 0xFFFF:
            raise ImageError(f"{name}: 32-bit pixels have no known range; save it with 8 bits")
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        below = Image.new("RGBA", image.size, (*background, 255))
        image = Image.alpha_composite(below, image)
    return np.array(image.convert("RGB"))


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: the image has no pixels ({width} x {height}); remove it")
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} x {height}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{name}: {width} x {height} pixels are longer than {MAX_ASPECT} : 1; crop the image"
        )


def _too_large(name: str, found: str) -> ImageError:
    return ImageError(
        f"{name}: the header announces {found} pixels, more than the limit of {MAX_PIXELS}; "
        "shrink the image",
        "too large image",
    )


def _broken(name: str, error: Exception) -> ImageError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ImageError(
        f"{name}: the image is damaged ({reason}); replace it or remove it", "damaged image"
    )
