"""TextCaps: `{"data": [{"image_id": "7f", "caption_str": "a sign that reads stop", ...}]}`.

Reference: Sidorov et al., `TextCaps: a Dataset for Image Captioning with Reading Comprehension
<https://arxiv.org/abs/2003.12462>`_, 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ape_jax.data.cells import shorten
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.published.documents import elements, look
from ape_jax.data.formats.published.places import folders, only_captions, only_whole
from ape_jax.data.formats.tables.opened import packed
from ape_jax.data.rows import Ask, Broken, FileRows, Row, asked_fields
from ape_jax.errors import UserError


def read_textcaps(path: str, ask: Ask) -> FileRows:
    """Reads one of TextCaps' files, a row a caption.

    Args:
      path: the document; images are IMAGE_ID.jpg beside it, in `train_images/` or the like.
      ask: what is asked.

    Raises:
      UserError: labels or a split are wanted, the document is damaged, or it has no captions, as
        that of the test set.
    """
    only_captions(ask, path)
    only_whole(ask, path)
    base = folders(path, "train_images", "test_images", "train", "test")
    return FileRows(rows=_rows(path, ask), base=base, named=True)


def is_textcaps(path: str) -> bool:
    """Tests for an object with `data` of images by id."""
    first = look(path).get("data")
    return isinstance(first, dict) and {"image_id", "flickr_original_url"} <= set(first)


def _rows(path: str, ask: Ask) -> Iterator[Row | Broken]:
    captions = 0
    for element in elements(path, ask.say):
        if element.key == "data" and element.number >= 0:
            captions += isinstance(element.value, dict) and "caption_str" in element.value
            yield _row(element.value, element.at, ask)
    if not captions:
        raise UserError(f"{path}: there is no 'caption_str' in it; take the file of train or val")


def _row(item: Any, at: str, ask: Ask) -> Row | Broken:
    image = item.get("image_id") if isinstance(item, dict) else None
    if not isinstance(image, str) or not image:
        return Broken(at, "no image", f"found {shorten(item)}; write an 'image_id'")
    if "caption_str" not in item and "captions" not in ask.columns:
        return Broken(at, "empty caption", "there is no 'caption_str'; write one or remove it")
    asked = asked_fields(item, ask)
    return Row(at, {**asked, "image": f"{image}.jpg", "captions": item.get("caption_str")})


TEXTCAPS = PairsFormat(
    name="textcaps",
    spec="TextCaps_*.json",
    suffixes=packed(".json"),
    matches=is_textcaps,
    read=read_textcaps,
)
