"""Raw rows of a pairs file, as a format's reader gives them.

A reader knows its file format and nothing else. What counts as an image, a caption, an id or a
label is decided in one place behind it (`columns`, `cells`, `table`), so that it is the same in
every format.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

# No caption and no record of anyone's is that long; a file that claims so is something else.
MAX_RECORD_BYTES = 10 * 2**20

Wanted = Literal["captions", "label"]


class Embedded(NamedTuple):
    """An encoded image that is a range of bytes of an uncompressed file, such as a tar."""

    path: str
    offset: int
    size: int


class Numbered(NamedTuple):
    """An image that the format itself reads by number (`PairsFormat.images`)."""

    number: int
    size: int


class Verbatim(NamedTuple):
    """A caption that is text even where it reads like a missing value, as an icon named `null`."""

    text: str


class Row(NamedTuple):
    """One row of a file.

    Attributes:
      at: what messages name behind the file: a line, a member, `row 3`.
      fields: cells by the file's own names of columns. The image is a path as text, encoded bytes,
        a mapping with `bytes` and `path`, `Embedded` or `Numbered`.
      suffix: makes the default id from the file's name, as in `shard.tar` + `/0001`; needed where
        the image is not a path.
    """

    at: str
    fields: Mapping[str, Any]
    suffix: str = ""


class Broken(NamedTuple):
    """A row that cannot be used; reading goes on behind it.

    Attributes:
      at: as in `Row`.
      kind: what it is counted as: "damaged row", "no image", "empty caption".
      reason: one phrase with the remedy; follows `FILE:AT: ` in messages.
    """

    at: str
    kind: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileRows:
    """The rows of one file.

    Attributes:
      rows: read once, lazily; may raise UserError for what ends the reading of the file.
      columns: names of the columns, where the file has a header; None takes the names that occur
        in the first rows.
      header: what messages name behind the file for its columns: the line of the header.
      base: folders that relative paths of images are relative to, the first in which images are
        found counts; () is the file's own folder, then the working directory.
      named: whether the fields have the names `image`, `captions`, `id` and `label`, because the
        format defines them; else columns are found by synonyms. Rows may have further fields, which
        `data.columns` can choose instead (`asked_fields`).
    """

    rows: Iterable[Row | Broken]
    columns: Sequence[str] | None = None
    header: str = ""
    base: Sequence[str] = ()
    named: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
    """What is asked of a reader.

    Attributes:
      key: the config key to name in messages.
      wanted: what is looked for beside the image.
      images: whether images are asked for; readers may leave them out where they are not.
      columns: the columns that the user has chosen: `image`, `captions`, `id`, `label` -> names.
      part: what stands behind the file's name in the spec, as in `dataset_coco.json:test`; "" where
        nothing does.
      say: takes one line for the user, such as an encoding that was guessed; equal lines are said
        once.
    """

    key: str
    wanted: Wanted = "captions"
    images: bool = True
    columns: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    part: str = ""
    say: Callable[[str], None] = print


def asked_fields(record: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """The fields of a record that `data.columns` names, for formats that define `image` and others.

    Example:
      >>> ask = Ask(key="data.pairs", columns={"captions": ("alt",)})
      >>> asked_fields({"alt": "a cat", "date": 3}, ask)
      {'alt': 'a cat'}
    """
    names = (name for names in ask.columns.values() for name in names)
    return {name: record[name] for name in names if name in record}
