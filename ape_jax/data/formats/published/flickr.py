"""Flickr30k and Flickr8k as they are published: `.token` files, and Kaggle's tables.

* `results_20130124.token`, `Flickr8k.token.txt`: `1000092795.jpg#0<TAB>caption`, one a line.
* `results.csv`: `1000092795.jpg| 0| caption`. One row, of 2199200615.jpg, lacks the second bar.
* `captions.txt`: `image,caption` or `image_name,comment_number,comment`, where captions hold commas
  and are not quoted.

References:
  Young et al., `From image descriptions to visual denotations
  <https://doi.org/10.1162/tacl_a_00166>`_, 2014.
  Hodosh et al., `Framing Image Description as a Ranking Task
  <https://doi.org/10.1613/jair.3994>`_, 2013.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence

from ape_jax.data.cells import shorten
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.published.places import (
    first_line,
    folders,
    lines,
    only_captions,
    only_whole,
)
from ape_jax.data.formats.tables.opened import packed
from ape_jax.data.rows import Ask, Broken, FileRows, Row, asked_fields

_FOLDERS = (
    *("flickr30k-images", "flickr30k_images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset"),
)
_TOKEN = re.compile(r"(?P<image>[^\t]*?)#\d+\s*\t(?P<caption>.*)")
_NUMBERED = re.compile(r"(?P<name>.+\.jpe?g)\.\d+", re.IGNORECASE)
_JOINED = re.compile(r"\s*(?P<number>\d+)\s+(?P<caption>\S.*)")
_BARS = ("image_name", "comment_number", "comment")
_HEADERS = ("image,caption", ",".join(_BARS))

Parse = Callable[[str], "tuple[str, ...] | str"]
"""A line -> its image, further cells and its caption, or what is wrong with it."""


def read_token(path: str, ask: Ask) -> FileRows:
    """Reads a `.token` file, a row a caption.

    Args:
      path: the file; images lie beside it or in `flickr30k-images/`, `Flicker8k_Dataset/`, ...
      ask: what is asked.

    Raises:
      UserError: labels or a split are wanted.
    """
    return _read(path, ask, _token(path, ask), ())


def read_bars(path: str, ask: Ask) -> FileRows:
    """Reads Kaggle's `results.csv` of Flickr30k, a row a caption.

    Args:
      path: the file; images lie beside it or in `flickr30k_images/`.
      ask: what is asked.

    Raises:
      UserError: labels or a split are wanted.
    """
    return _read(path, ask, _bars(path, ask), _BARS)


def read_commas(path: str, ask: Ask) -> FileRows:
    """Reads Kaggle's `captions.txt`, a row a caption; commas in captions are not separators.

    Args:
      path: the file; images lie beside it or in `Images/`.
      ask: what is asked.

    Raises:
      UserError: labels or a split are wanted.
    """
    header = "".join(first_line(path).lower().split()).split(",")
    return _read(path, ask, lambda line: _commas(line, len(header) - 1), header)


def is_token(path: str) -> bool:
    """Tests for a first line with the number of a caption behind the image."""
    return _TOKEN.fullmatch(first_line(path)) is not None


def is_bars(path: str) -> bool:
    """Tests for the header of `results.csv`."""
    return tuple(cell.strip().lower() for cell in first_line(path).split("|")) == _BARS


def is_commas(path: str) -> bool:
    """Tests for the header of `captions.txt`."""
    return "".join(first_line(path).lower().split()) in _HEADERS


def _read(path: str, ask: Ask, parse: Parse, header: Sequence[str]) -> FileRows:
    only_captions(ask, path)
    only_whole(ask, path)
    return FileRows(rows=_rows(path, ask, parse, header), base=folders(path, *_FOLDERS), named=True)


def _rows(path: str, ask: Ask, parse: Parse, header: Sequence[str]) -> Iterator[Row | Broken]:
    first = bool(header)
    for line in lines(path, ask.say):
        if isinstance(line, Broken):
            yield line
        elif first:
            first = False
        else:
            number, text = line
            found = parse(text)
            if isinstance(found, str):
                yield Broken(str(number), "damaged row", found)
            else:
                asked = asked_fields(dict(zip(header, found, strict=bool(header))), ask)
                yield Row(str(number), {**asked, "image": found[0].strip(), "captions": found[-1]})


def _token(path: str, ask: Ask) -> Parse:
    def parse(line: str) -> tuple[str, str] | str:
        match = _TOKEN.fullmatch(line)
        if match is None:
            return f"found {shorten(line)}; write IMAGE.jpg#0, a tab and the caption"
        image = match["image"].strip()
        if numbered := _NUMBERED.fullmatch(image):  # Flickr8k has one image of such a name.
            ask.say(f"{path}: the image {image!r} is read as {numbered['name']!r}")
            image = numbered["name"]
        return image, match["caption"]

    return parse


def _bars(path: str, ask: Ask) -> Parse:
    def parse(line: str) -> tuple[str, ...] | str:
        cells = line.split("|", 2)
        if len(cells) == 3:
            return cells[0], cells[1], cells[2]
        match = _JOINED.fullmatch(cells[1]) if len(cells) == 2 else None
        if match is None:
            return f"found {shorten(line)}; write IMAGE.jpg| 0| and the caption"
        ask.say(
            f"{path}: {cells[0]}, caption {match['number']}, has no bar before its caption, which "
            f"is read as {shorten(match['caption'])}"
        )
        return cells[0], match["number"], match["caption"]

    return parse


def _commas(line: str, commas: int) -> tuple[str, ...] | str:
    image, *rest = line.split(",", commas)
    if len(rest) < commas:
        return f"found {shorten(line)}; write the image, a comma and the caption"
    caption = rest[-1]
    if caption.startswith('"'):  # Quoted after all, where it is one cell and no more.
        cells = next(csv.reader([caption]), [])
        closed = len(caption) > 1 and caption.rstrip().endswith('"')
        caption = cells[0] if closed and len(cells) == 1 else caption
    return image, *rest[:-1], caption


TOKEN = PairsFormat(
    name="flickr_token",
    spec="*.token, *.token.txt (Flickr30k, Flickr8k)",
    suffixes=packed(".token", ".txt"),
    matches=is_token,
    read=read_token,
)
BARS = PairsFormat(
    name="flickr_bars",
    spec="results.csv (Flickr30k)",
    suffixes=packed(".csv"),
    matches=is_bars,
    read=read_bars,
)
COMMAS = PairsFormat(
    name="flickr_commas",
    spec="captions.txt (Flickr8k)",
    suffixes=packed(".txt"),
    matches=is_commas,
    read=read_commas,
)
