"""Karpathy's splits of COCO, Flickr30k and Flickr8k: `dataset_coco.json:test`.

Reference: Karpathy, Fei-Fei, `Deep Visual-Semantic Alignments for Generating Image Descriptions
<https://arxiv.org/abs/1412.2306>`_, 2015.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ape_jax.data.cells import shorten
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.published.documents import elements, look
from ape_jax.data.formats.published.places import counted, folders, listed, only_captions
from ape_jax.data.formats.tables.opened import packed
from ape_jax.data.rows import Ask, Broken, FileRows, Row, asked_fields
from ape_jax.errors import UserError

_FOLDERS = (
    *("flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images", "Images"),
    *("Flicker8k_Dataset", "Flickr8k_Dataset", "coco", "coco/images", "val2014"),
)


def read_karpathy(path: str, ask: Ask) -> FileRows:
    """Reads a `dataset_*.json`, a row an image with its sentences.

    Args:
      path: the file; images are `filepath` and `filename`, or `filename` alone.
      ask: what is asked; the part is a split, or several as in `train+restval`; "" is all of them,
        which is said.

    Raises:
      UserError: labels are wanted, the document is damaged, or it has no such split.
    """
    only_captions(ask, path)
    return FileRows(rows=_rows(path, ask), base=folders(path, *_FOLDERS), named=True)


def is_karpathy(path: str) -> bool:
    """Tests for an object with a list of images that have sentences."""
    image = look(path).get("images")
    return isinstance(image, dict) and {"sentences", "filename"} <= set(image)


def _rows(path: str, ask: Ask) -> Iterator[Row | Broken]:
    wanted = {split.strip() for split in ask.part.split("+")} if ask.part else set()
    found: Counter[str] = Counter()
    for element in elements(path, ask.say):
        if element.key != "images" or element.number < 0:
            continue
        image = element.value
        if not isinstance(image, dict):
            reason = f"found {shorten(image)}; write an image with its sentences"
            yield Broken(element.at, "damaged row", reason)
            continue
        split = str(image.get("split", ""))
        found[split] += 1
        if not wanted or split in wanted:
            yield _row(image, element.at, ask)
    if unknown := sorted(wanted - set(found)):
        raise UserError(
            f"{ask.key}: {path!r} has no split {unknown[0]!r}; write one of {listed(sorted(found))}"
        )
    _say(path, ask, wanted, found)


def _say(path: str, ask: Ask, wanted: set[str], found: Counter[str]) -> None:
    counts = ", ".join(f"{split} {count}" for split, count in found.items())
    if not wanted and len(found) > 1:
        ask.say(f"{path}: the images of all splits are read ({counts}); {path}:test reads one")
    if "train" in wanted and "restval" in found and "restval" not in wanted:
        ask.say(
            f"{path}: {counted(found['restval'], 'image')} of the split 'restval', with which "
            f"models are often trained, are not read; {path}:train+restval reads them, too"
        )


def _row(image: dict[str, Any], at: str, ask: Ask) -> Row | Broken:
    name, sentences = image.get("filename"), image.get("sentences")
    if not isinstance(name, str) or not name:
        return Broken(at, "no image", f"'filename' is {shorten(name)}; write the name of a file")
    if not isinstance(sentences, list) or not all(isinstance(s, dict) for s in sentences):
        reason = f"'sentences' is {shorten(sentences)}; write a list of sentences"
        return Broken(at, "damaged row", reason)
    folder = image.get("filepath")
    name = os.path.join(folder, name) if isinstance(folder, str) else name
    captions = [sentence.get("raw") for sentence in sentences]
    return Row(at, {**asked_fields(image, ask), "image": name, "captions": captions})


KARPATHY = PairsFormat(
    name="karpathy",
    spec="dataset_*.json:SPLIT (Karpathy)",
    suffixes=packed(".json"),
    matches=is_karpathy,
    read=read_karpathy,
)
