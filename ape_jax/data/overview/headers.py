"""Sizes and formats of images, read from the headers of a sample."""

from __future__ import annotations

import collections
import dataclasses
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from ape_jax.data.overview.spread import Spread
from ape_jax.images import decode
from ape_jax.images.decode import ImageError, ImageRef
from ape_jax.terminal.progress import track


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of images.

    Attributes:
      looked_at: images whose header was read.
      unreadable: images of the sample that have none.
      width: widths in pixels.
      height: heights in pixels.
      formats: number of images by the name of their format, the most frequent first.
    """

    looked_at: int
    unreadable: int
    width: Spread
    height: Spread
    formats: Mapping[str, int]

    def record(self) -> dict[str, Any]:
        """The figures for JSON."""
        return {
            "looked_at": self.looked_at,
            "unreadable": self.unreadable,
            "width": self.width.record(),
            "height": self.height.record(),
            "formats": dict(self.formats),
        }


def sizes(image: Callable[[int], ImageRef], rows: Int[np.ndarray, " n"]) -> Sizes:
    """Reads the headers of images.

    Args:
      image: gives the image of a row.
      rows: the sample.
    """
    found, formats, unreadable = [], collections.Counter[str](), 0
    for row in track(rows.tolist(), "looking at sizes of images", len(rows), "images"):
        try:
            name, width, height = header(image(row))
        except ImageError:
            unreadable += 1
            continue
        formats[name] += 1
        found.append((width, height))
    sides = np.asarray(found, np.int64).reshape(-1, 2)
    return Sizes(
        looked_at=len(found),
        unreadable=unreadable,
        width=Spread.of(sides[:, 0]),
        height=Spread.of(sides[:, 1]),
        formats=dict(formats.most_common()),
    )


def header(image: ImageRef) -> tuple[str, int, int]:
    """Format, width and height of an image as it is stored; its pixels are not decoded.

    Raises:
      ImageError: it is missing, empty or no image.
    """
    content = image.content
    if isinstance(content, np.ndarray):
        return "array", content.shape[1], content.shape[0]
    decode.check_encoded(content, image.name)
    try:
        with Image.open(
            io.BytesIO(content) if isinstance(content, bytes) else content, formats=decode.FORMATS
        ) as opened:
            return str(opened.format), *opened.size
    except Exception as e:  # A hostile header can make a decoder raise nearly anything.
        raise ImageError(f"{image.name}: this is not an image that can be read") from e
