"""COCO's annotations of captions, and the sets that are published in its form.

`{"images": [{"id": 9, "file_name": "9.jpg"}], "annotations": [{"id": 1, "image_id": 9, "caption":
"a cat"}]}`: captions_train2017.json, nocaps, VizWiz, STAIR. The id of an annotation is the
caption's; images are joined by their files.

Reference: https://cocodataset.org/#format-data (section 5, image captioning).
"""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import numpy as np

from ape_jax.data.cells import shorten
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.published.documents import elements, look
from ape_jax.data.formats.published.places import counted, folders, only_captions, only_whole
from ape_jax.data.formats.tables.opened import packed, unpacked
from ape_jax.data.rows import Ask, Broken, FileRows, Row, asked_fields
from ape_jax.errors import UserError

_OBJECTS = ("bbox", "segmentation", "category_id", "keypoints")


def read_coco(path: str, ask: Ask) -> FileRows:
    """Reads a file of annotations, a row a caption; images are looked up by their ids.

    Args:
      path: the annotations; images lie in `train2017/`, `images/`, `../train2017/` or the like.
      ask: what is asked.

    Raises:
      UserError: labels or a split are wanted, the document is damaged, or it has no captions.
    """
    only_captions(ask, path)
    only_whole(ask, path)
    base = folders(path, *_image_folders(path), "train2017", "val2017", "train", "val")
    return FileRows(rows=_rows(path, ask), base=base, named=True)


def is_coco(path: str) -> bool:
    """Tests for an object with lists of images and annotations."""
    first = look(path)
    image, annotation = first.get("images"), first.get("annotations")
    if isinstance(annotation, dict) and "image_id" in annotation:
        return True
    return isinstance(image, dict) and {"id", "file_name"} <= set(image)


def _image_folders(path: str) -> list[str]:
    """`train2017`, out of `captions_train2017.json` or out of the first image's address."""
    stem = os.path.splitext(os.path.basename(unpacked(path)))[0]
    found = [stem.split("_", 1)[1]] if "_" in stem else []
    first = look(path).get("images")
    address = str(first.get("coco_url", "")) if isinstance(first, dict) else ""
    match = re.search(r"/([^/]+)/[^/]+$", address)
    return [*found, *([match[1]] if match else [])]


def _rows(path: str, ask: Ask) -> Iterator[Row | Broken]:
    names, late, captions = _Names(), False, 0
    for element in elements(path, ask.say):
        if element.key == "images" and element.number >= 0:
            if (broken := names.add(element.value, element.at)) is not None:
                yield broken
        elif element.key == "annotations" and element.number >= 0:
            captions += 1
            if names:
                yield _row(element.value, element.at, names, path, ask)
            else:
                late = True
    if not captions or not names:
        missing = "images" if captions else "annotations"
        raise UserError(
            f"{path}: there are no {missing!r} in it, and so no captions of images; take the file "
            "of captions, such as captions_train2017.json"
        )
    if late:  # The images stand behind the captions.
        for element in elements(path, ask.say):
            if element.key == "annotations" and element.number >= 0:
                yield _row(element.value, element.at, names, path, ask)
    if unused := names.unused():
        ask.say(f"{path}: {counted(unused, 'image')} of {len(names)} without a caption left out")


def _row(annotation: Any, at: str, names: _Names, path: str, ask: Ask) -> Row | Broken:
    if not isinstance(annotation, dict):
        return Broken(at, "damaged row", f"found {shorten(annotation)}; write an annotation")
    if "caption" not in annotation and any(name in annotation for name in _OBJECTS):
        raise UserError(
            f"{path}: {at}: these are annotations of objects, without a 'caption'; take the file "
            "of captions, such as captions_train2017.json"
        )
    image = annotation.get("image_id")
    name = names.find(image)
    if name is None:
        reason = f"the image_id {shorten(image)} is none of the images; correct it"
        return Broken(at, "no image", reason)
    if "caption" not in annotation and "captions" not in ask.columns:
        return Broken(at, "empty caption", "there is no 'caption'; write one or remove it")
    asked = asked_fields(annotation, ask)
    return Row(at, {**asked, "image": name, "captions": annotation.get("caption")})


class _Names:
    """Names of files by the ids of images, in some 50 bytes an image.

    COCO has 118 thousand images, and sets of its form have millions: not each a Python object.
    """

    def __init__(self):
        self._keys, self._ends = array("q"), array("Q")
        self._text = bytearray()
        self._sorted, self._order = array("q"), array("q")
        self._used = bytearray()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, image: Any, at: str) -> Broken | None:
        """Adds an image; returns why that cannot be."""
        if not isinstance(image, dict):
            return Broken(at, "damaged row", f"found {shorten(image)}; write an image")
        key, name = _key(image.get("id")), image.get("file_name")
        if key is None or not isinstance(name, str) or not name:
            found = shorten({n: image.get(n) for n in ("id", "file_name")})
            return Broken(at, "no image", f"found {found}; write an 'id' and a 'file_name'")
        self._keys.append(key)
        self._text += name.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._text))
        return None

    def find(self, image: Any) -> str | None:
        """The file of an image; None where no image has this id."""
        key = _key(image)
        if len(self._sorted) != len(self._keys):
            keys = np.array(self._keys, np.int64)
            order = np.argsort(keys, kind="stable")
            self._sorted, self._order = (
                array("q", keys[order].tobytes()),
                array("q", order.tobytes()),
            )
            self._used = bytearray(len(keys))
        at = len(self._sorted) if key is None else bisect_left(self._sorted, key)
        if at == len(self._sorted) or self._sorted[at] != key:
            return None
        number = self._order[at]
        self._used[number] = 1
        start = self._ends[number - 1] if number else 0
        return self._text[start : self._ends[number]].decode("utf-8", "surrogatepass")

    def unused(self) -> int:
        """Number of images that were never asked for."""
        return len(self._keys) - sum(self._used)


def _key(value: Any) -> int | None:
    """An id as 64 bits: a small integer as it is, also where it is text; other text by its hash."""
    if isinstance(value, str) and len(value) < 18 and value.isdecimal() and value.isascii():
        value = int(value) if value == "0" or value[0] != "0" else value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62:
        return value
    if isinstance(value, int | str) and not isinstance(value, bool) and value != "":
        digest = hashlib.blake2b(str(value).encode("utf-8", "surrogatepass"), digest_size=8)
        return int.from_bytes(digest.digest(), "little", signed=True)
    return None


COCO = PairsFormat(
    name="coco",
    spec="captions_*.json (COCO)",
    suffixes=packed(".json"),
    matches=is_coco,
    read=read_coco,
)
