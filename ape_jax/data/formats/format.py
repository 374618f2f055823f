"""Declaration of a format of pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ape_jax.data.pairs import Pairs
from ape_jax.data.rows import Ask, FileRows
from ape_jax.errors import UserError

Reader = Callable[[str, Ask], FileRows]
Opener = Callable[[str, str], Pairs]
Images = Callable[[str, str], Callable[[int], bytes]]


def _no_rows(spec: str, ask: Ask) -> FileRows:
    """Stands for `read` in a format that has `open` instead."""
    raise UserError(
        f"{ask.key}: {spec!r} holds no images with {ask.wanted!r}; write pairs of another form"
    )


def _no_stamp(spec: str, key: str) -> str:
    return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsFormat:
    """A format of pairs: how a spec of it is recognised, and how it is read.

    It is recognised by the spec's prefix, by the suffix of a file, or by a look at a file or
    folder. Files may be several, by a pattern such as `a-{000..003}.tar`; each is there when it is
    read.

    Example:
      def read(path, ask):
          def rows():
              for number, line in enumerate(open(path, encoding="utf-8"), 1):
                  image, bar, caption = line.partition(" | ")
                  yield Row(str(number), {"image": image, "captions": caption})

          return FileRows(rows=rows(), named=True)

      FORMATS.register(PairsFormat(name="lines", spec="*.lines", suffixes=(".lines",), read=read))

    Attributes:
      name: in the registry.
      spec: how it is written in a config, for messages: "*.jsonl", "tfds:NAME:SPLIT".
      prefix: what a spec begins with, "tfds:"; "" for files.
      suffixes: what a file's name ends with, lower-case; the longest of all formats' counts. "/" is
        a folder.
      matches: takes the path of a file with such a suffix, or of a folder, and tells by a look at
        it whether it is of this format; None where the suffix is enough. Formats that look come
        before those that do not.
      read: (path or spec, what is asked) -> its rows, which are read lazily.
      images: (spec, config key) -> reader of `Numbered` images.
      stamp: (spec, config key) -> text that changes when the content of a prefix's spec, or of a
        folder, may have; "" reads it anew each time. Files have their size and time.
      prepare: (path, say) puts into the cache folder what a table refers to, such as a copy that is
        not compressed; called at each opening.
      open: (spec, config key) -> pairs, for a format that is not made of images and texts. A format
        has either `read` or `open`.
    """

    name: str
    spec: str
    prefix: str = ""
    suffixes: tuple[str, ...] = ()
    matches: Callable[[str], bool] | None = None
    read: Reader = _no_rows
    images: Images | None = None
    stamp: Callable[[str, str], str] = _no_stamp
    prepare: Callable[[str, Callable[[str], None]], object] | None = None
    open: Opener | None = None

    def __post_init__(self) -> None:
        has_read, has_open = self.read is not _no_rows, self.open is not None
        if bool(self.prefix) == bool(self.suffixes) or has_read == has_open:
            raise ValueError(
                f"pairs format {self.name!r}: give either a prefix or suffixes, and either read or "
                "open"
            )
