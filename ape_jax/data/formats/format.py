"""Declaration of a format of pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from ape_jax.data.pairs import Pairs
from ape_jax.data.records import Record
from ape_jax.errors import UserError

Reader = Callable[[str, Sequence[str], str], Iterator[Record]]
Opener = Callable[[str, str], Pairs]


def _no_records(spec: str, wanted: Sequence[str], key: str) -> Iterator[Record]:
    """Stands for `read` in a format that has `open` instead."""
    names = " or ".join(map(repr, wanted))
    raise UserError(f"{key}: {spec!r} holds no images with {names}; write pairs of another form")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsFormat:
    """A format of pairs: how a spec of it is recognised, and how it is read.

    It is recognised by the spec's prefix or by the suffix of a file. Files may be several, by a
    pattern such as `a-{000..003}.tar`; each is there when it is read.

    Example:
      def read(path, wanted, key):
          for number, line in enumerate(open(path, encoding="utf-8"), 1):
              image, caption = line.split(" ", 1)
              where = f"{path}:{number}"
              yield file_record(image, {"caption": caption}, where=where, base=dirname(path))

      FORMATS.register(PairsFormat(name="lines", spec="*.lines", suffixes=(".lines",), read=read))

    Attributes:
      name: in the registry.
      spec: how it is written in a config, for messages: "*.jsonl", "tfds:NAME:SPLIT".
      prefix: what a spec begins with, "tfds:"; "" for files.
      suffixes: what a file's name ends with, lower-case.
      read: (path or spec, fields of which one is wanted, config key) -> the records; fields are
        "captions" and "caption", or "label" for labelled images. It raises UserError for a record
        that is damaged, with file and line; captions and labels are checked by its callers.
      open: (spec, config key) -> pairs, for a format that is not made of images and texts. A format
        has either `read` or `open`.
    """

    name: str
    spec: str
    prefix: str = ""
    suffixes: tuple[str, ...] = ()
    read: Reader = _no_records
    open: Opener | None = None

    def __post_init__(self) -> None:
        has_read, has_open = self.read is not _no_records, self.open is not None
        if bool(self.prefix) == bool(self.suffixes) or has_read == has_open:
            raise ValueError(
                f"pairs format {self.name!r}: give either a prefix or suffixes, and either read or "
                "open"
            )
