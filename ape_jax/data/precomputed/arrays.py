"""What own features must be: shapes, offsets and which image a text is of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from ape_jax.data.precomputed.file_array import FileArray
from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrays:
    """Own features of n images and m captions.

    Attributes:
      image: [n, d] or [n, V, d].
      text: [S, d], or dense [m, T, d]; None where captions are words.
      offsets: i64 [m + 1], of captions in the S vectors of `text`; None likewise.
      owner: i64 [m], the image of each caption, ascending.
    """

    image: FileArray
    text: FileArray | None
    offsets: Int[np.ndarray, " bounds"] | None
    owner: Int[np.ndarray, " m"]


def of_parts(parts: Mapping[str, FileArray], where: str) -> Arrays:
    """The arrays of one file, or of one file each.

    Args:
      parts: `image`, `text` and, if wanted, `text_offsets` and `owner`.
      where: the config key and the files, for messages.

    Raises:
      UserError: for arrays that do not fit.
    """
    check_image(parts["image"], where)
    offsets = offsets_of(parts, where)
    owner = owner_of(parts, offsets, where)
    return Arrays(image=parts["image"], text=parts["text"], offsets=offsets, owner=owner)


def offsets_of(parts: Mapping[str, FileArray], where: str) -> Int[np.ndarray, " bounds"]:
    """Where captions begin and end in the vectors of `text`.

    Raises:
      UserError: for a text, or offsets, of another shape or type; offsets that do not rise.
    """
    text, given = parts["text"], parts.get("text_offsets")
    shape = text.shape
    bad = given is not None and (len(given.shape) != 1 or not _is_integer(given))
    if bad or len(shape) not in ((2, 3) if given is None else (2,)):
        raise UserError(
            f"{where}: 'text' is {list(shape)} of {text.dtype.name}; write [m, d], [m, T, d], or "
            "[S, d] with integer text_offsets [m + 1]"
        )
    if 0 in shape or not text.is_floating:
        raise UserError(
            f"{where}: 'text' is {list(shape)} of {text.dtype.name}; write floating point numbers"
        )
    if given is None:
        return np.arange(shape[0] + 1) * (shape[1] if len(shape) == 3 else 1)
    # Looked at before they are read: more offsets than vectors cannot be right.
    offsets = given.whole().astype(np.int64) if 2 <= given.shape[0] <= shape[0] + 1 else None
    if offsets is None or offsets[0] or offsets[-1] != shape[0] or (np.diff(offsets) < 1).any():
        raise UserError(
            f"{where}: 'text_offsets' must rise from 0 to {shape[0]}, the rows of 'text', with at "
            "least one row for each caption"
        )
    return offsets


def check_image(image: FileArray, where: str) -> None:
    """Checks shape and type of images.

    Raises:
      UserError: for others.
    """
    if len(image.shape) not in (2, 3) or 0 in image.shape or not image.is_floating:
        raise UserError(
            f"{where}: 'image' is {list(image.shape)} of {image.dtype.name}; write floating point "
            "numbers [n, d], or [n, V, d] for several views of each"
        )


def owner_of(
    parts: Mapping[str, FileArray], offsets: Int[np.ndarray, " bounds"], where: str, base: int = 0
) -> Int[np.ndarray, " m"]:
    """The image of each caption.

    Args:
      parts: as for `of_parts`.
      offsets: of captions.
      where: for messages.
      base: images of shards before this one; `owner` may count them.

    Raises:
      UserError: for counts that differ, or an `owner` that does not name all images in order.
    """
    given, images, texts = parts.get("owner"), parts["image"].shape[0], len(offsets) - 1
    if given is None:
        if texts != images:
            raise UserError(
                f"{where}: {images} rows of 'image' but {texts} of 'text'; give as many, or "
                "'owner', the image of each text"
            )
        return np.arange(images)
    owner = np.zeros(0, np.int64)
    if len(given.shape) == 1 and _is_integer(given) and given.shape[0] == texts:
        owner = given.whole().astype(np.int64)
        owner = owner - (base if owner[0] == base else 0)
    steps = np.diff(owner)
    if not len(owner) or owner[0] or owner[-1] != images - 1 or ((steps != 0) & (steps != 1)).any():
        raise UserError(
            f"{where}: 'owner' must name the image of each of the {texts} texts, in ascending "
            f"order, and each of the {images} images at least once"
        )
    return owner


def _is_integer(array: FileArray) -> bool:
    return np.issubdtype(array.dtype, np.integer)
