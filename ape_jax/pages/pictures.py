"""Thumbnails inside a page: each image stands in the file once, however often it is shown."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ape_jax.pages.html import escape

_BOX = 82  # CSS pixels of a frame (5.5rem) inside its border.
_STORED = 164  # Twice that, for screens of two pixels a CSS pixel.
_LOSSLESS = 96  # Up to this side a drawing is kept as it is.


class Pictures:
    """The thumbnails of a page, as rules of its style.

    A picture is the background of its frame, so that one that a hundred queries find costs its
    bytes once, and a browser decodes it when it is scrolled to.

    Attributes:
      nbytes: size of all pictures in the page.
    """

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._rules)

    @property
    def rules(self) -> str:
        """The style rules, one a picture."""
        return "\n".join(f".thumb .{name} {{{rule}}}" for name, rule in self._rules.items())

    def add(self, key: str, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Adds a picture under a name that `thumb` takes, which is a word."""
        content, width, sharp = _encoded(Image.fromarray(image), _BOX)
        self.nbytes += len(content)
        rendering = "image-rendering:pixelated;" if sharp else ""
        self._rules[key] = (
            f"background-image:url({content});background-size:{width}px auto;{rendering}"
        )

    def __contains__(self, key: str) -> bool:
        return key in self._rules

    def thumb(self, key: str, title: str, note: str, kind: str = "") -> str:
        """A frame with a picture in it.

        Args:
          key: its name.
          title: what is read aloud, and shows when the pointer rests on it.
          note: what stands under it.
          kind: more classes of the frame: `right`, `missed`.
        """
        name = escape(title)
        return (
            f'<div class="{f"thumb {kind}".strip()}"><span class="{key}" role="img" '
            f'aria-label="{name}" title="{name}"></span>{escape(note)}</div>'
        )


def img(image: UInt8[np.ndarray, "H W 3"], title: str) -> str:
    """A thumbnail as an element of its own, for a page without rules of style.

    Args:
      image: uint8 [H, W, 3].
      title: what is read aloud, and shows when the pointer rests on it.
    """
    content, width, sharp = _encoded(Image.fromarray(image), _STORED)
    style, name = ' style="image-rendering:pixelated"' if sharp else "", escape(title)
    return f'<img width="{width}" alt="{name}" title="{name}"{style} src="{content}">'


def _encoded(picture: Image.Image, box: int) -> tuple[str, int, bool]:
    """A data address, the width to show it at, and whether that enlarges it.

    A small picture is shown by whole multiples of its size, so that it stays sharp.
    """
    width, largest = picture.size[0], max(picture.size)
    times = max(1, box // largest)
    width = width * times if largest <= box else round(width * box / largest)
    picture.thumbnail((_STORED, _STORED))
    file, kind = io.BytesIO(), "png" if largest <= _LOSSLESS else "jpeg"
    if kind == "png":
        picture.save(file, "PNG", optimize=True)
    else:
        picture.save(file, "JPEG", quality=80, optimize=True)
    content = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{kind};base64,{content}", width, times > 1
