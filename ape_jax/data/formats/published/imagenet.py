"""ImageNet's labels: a list of files with their classes, and Kaggle's `LOC_val_solution.csv`.

* `val.txt`: `ILSVRC2012_val_00000001.JPEG 65`; the number counts WordNet ids in alphabetical order,
  from 0, or a WordNet id stands in its place.
* `LOC_val_solution.csv`: `ImageId,PredictionString`, `ILSVRC2012_val_00000001,n01751748 111 ...`.
* `ILSVRC2012_validation_ground_truth.txt`: numbers alone, in an order of their own: says what to
  take.

Reference: https://www.kaggle.com/c/imagenet-object-localization-challenge/data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from ape_jax.data.cells import shorten
from ape_jax.data.formats import registry
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.published.places import first_line, folders, lines, only_whole
from ape_jax.data.formats.tables.opened import packed
from ape_jax.data.rows import Ask, Broken, FileRows, Row, asked_fields
from ape_jax.errors import UserError

_LINE = re.compile(
    r"(?P<image>\S.*?\.(?:jpe?g|png|webp|bmp))[ \t,;]+(?P<label>\d+|n\d{8})", re.IGNORECASE
)
_HEADER = re.compile(r"(image|file|filename|image_?name|path|img)[ \t,;]+(label|class)\w*", re.I)
_WORDNET = re.compile(r"n\d{8}")
_SOLUTION = ("imageid", "predictionstring")
_NUMBERS = "ground_truth"


def read_list(path: str, ask: Ask) -> FileRows:
    """Reads a list of files with their classes, with or without a header.

    Args:
      path: the list; images lie beside it, in `val/` or the like.
      ask: what is asked.

    Raises:
      UserError: captions or a split are wanted, or the file has numbers alone.
    """
    _only_labels(ask, path)
    if first_line(path).strip().isdecimal():
        raise UserError(
            f"{path}: it has numbers of classes and no names of images, and counts the classes as "
            "meta.mat of the development kit does; take LOC_val_solution.csv or folders of classes"
        )
    base = folders(path, "val", "ILSVRC2012_img_val", "train")
    return FileRows(rows=_list(path, ask), base=base, named=True)


def read_solution(path: str, ask: Ask) -> FileRows:
    """Reads `LOC_val_solution.csv`; the class is the first box's.

    Args:
      path: the table; images lie in `ILSVRC/Data/CLS-LOC/val` beside it, or in `val/`.
      ask: what is asked.

    Raises:
      UserError: captions or a split are wanted.
    """
    _only_labels(ask, path)
    inside = [os.path.join("ILSVRC", "Data", "CLS-LOC", split) for split in ("val", "train")]
    rows = _solution(registry.FORMATS["csv"].read(path, ask).rows, ask)
    return FileRows(rows=rows, base=folders(path, *inside, "val", "train"), named=True)


def is_list(path: str) -> bool:
    """Tests for a first line with a file and its class, or for the ground truth's numbers."""
    first = first_line(path).strip()
    if _NUMBERS in os.path.basename(path).lower() and first.isdecimal():
        return True
    return bool(_LINE.fullmatch(first) or _HEADER.fullmatch(first))


def is_solution(path: str) -> bool:
    """Tests for the header of `LOC_val_solution.csv`."""
    return tuple(name.strip().lower() for name in first_line(path).split(",")) == _SOLUTION


def _only_labels(ask: Ask, path: str) -> None:
    only_whole(ask, path)
    if ask.wanted != "label":
        raise UserError(
            f"{ask.key}: {path!r} holds classes and no captions; it is for zero-shot evaluation"
        )


def _list(path: str, ask: Ask) -> Iterator[Row | Broken]:
    first = True
    for line in lines(path, ask.say):
        header, first = first, False
        if isinstance(line, Broken):
            yield line
            continue
        number, text = line
        match = _LINE.fullmatch(text.strip())
        if match is not None:
            yield Row(str(number), {"image": match["image"], "label": match["label"]})
        elif not (header and _HEADER.fullmatch(text.strip())):
            reason = f"found {shorten(text)}; write the file, a space and its class"
            yield Broken(str(number), "damaged row", reason)


def _solution(rows: Iterable[Row | Broken], ask: Ask) -> Iterator[Row | Broken]:
    for row in rows:
        if isinstance(row, Broken):
            yield row
            continue
        cells = {str(name).strip().lower(): value for name, value in row.fields.items()}
        name, boxes = (str(cells.get(key) or "").strip() for key in _SOLUTION)
        label = boxes.split(" ", 1)[0]
        if not name or not _WORDNET.fullmatch(label):
            reason = f"found {shorten([name, boxes])}; write an image and its WordNet id"
            yield Broken(row.at, "damaged row", reason)
            continue
        # Images of the training set lie in folders of their classes.
        folder = "" if "_val_" in name or "_" not in name else name.split("_", 1)[0]
        fields = {"image": os.path.join(folder, f"{name}.JPEG"), "label": label}
        yield Row(row.at, {**asked_fields(row.fields, ask), **fields})


LIST = PairsFormat(
    name="imagenet_list",
    spec="val.txt (ImageNet)",
    suffixes=packed(".txt"),
    matches=is_list,
    read=read_list,
)
SOLUTION = PairsFormat(
    name="imagenet_solution",
    spec="LOC_val_solution.csv (ImageNet)",
    suffixes=packed(".csv"),
    matches=is_solution,
    read=read_solution,
)
