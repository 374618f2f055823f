"""Files of a tar that share a key are one record, in whatever order they lie in the tar.

The key is the name up to the first dot behind the last slash, as WebDataset splits it. The index of
a shard is held in memory while it is read: 24 bytes a file, and its keys.
"""

from __future__ import annotations

import array
import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ape_jax.data.archives.headers import Damage, Member
from ape_jax.errors import UserError
from ape_jax.images.formats import is_litter

# Shards hold tens of thousands; the index of so many takes some 400 MB.
_MOST_FILES = 4_000_000
_MOST_KEYS_BYTES = 2**28
_HERE = re.compile(r"(^|/)(?:\./+)+")  # `tar cf a.tar .` puts ./ before every name.
_OURS = re.compile(r"__[^/]*__($|/)")  # WebDataset's own files.


class Part(NamedTuple):
    """A file of a record.

    Attributes:
      ending: of its name, behind the key's dot, in lower case; "" where there is no dot.
      offset: of its bytes in the tar.
      size: in bytes.
      plain: whether it is a file, and not a link or the like.
    """

    ending: str
    offset: int
    size: int
    plain: bool = True


class Record(NamedTuple):
    """The files of one key, in the order of the tar."""

    key: str
    parts: tuple[Part, ...]


class Index:
    """The records of a tar.

    Args:
      path: of the tar, for messages.
      found: its members; read at once.

    Attributes:
      damage: what ended the reading, if anything.
      left: number of files that are no part of a record, by kind.
    """

    def __init__(self, path: str, found: Iterable[Member | Damage]):
        self.damage: Damage | None = None
        self.left: dict[str, int] = {}
        self._keys: list[str] = []
        self._endings: list[str] = []
        self._offsets, self._sizes = array.array("q"), array.array("q")
        self._ending_of, self._key_of = array.array("i"), array.array("i")
        self._plain = bytearray()
        numbers: dict[str, int] = {}
        endings: dict[str, int] = {}
        key_bytes = 0
        for member in found:
            if isinstance(member, Damage):
                self.damage = member
                break
            split = self._split(member)
            if split is None:
                continue
            key, ending = split
            number = numbers.setdefault(key, len(numbers))
            if number == len(self._keys):
                self._keys.append(key)
                key_bytes += len(key)
            at = endings.setdefault(ending, len(endings))
            if at == len(self._endings):
                self._endings.append(ending)
            self._key_of.append(number)
            self._ending_of.append(at)
            self._offsets.append(member.offset)
            self._sizes.append(member.size)
            self._plain.append(member.kind == "file")
            if len(self._offsets) > _MOST_FILES or key_bytes > _MOST_KEYS_BYTES:
                raise UserError(
                    f"{path}: the tar holds more than {len(self._offsets) - 1} files with names of "
                    f"{key_bytes >> 20} MiB; pack them as several shards"
                )

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Record]:
        """Yields records in the order of their first files."""
        key_of = np.frombuffer(self._key_of, np.int32)
        order = np.argsort(key_of, kind="stable")
        ends = np.searchsorted(key_of, np.arange(1, len(self) + 1), sorter=order)
        start = 0
        for key, end in zip(self._keys, ends.tolist()):
            yield Record(key, tuple(self._part(i) for i in order[start:end].tolist()))
            start = end

    def _part(self, i: int) -> Part:
        ending = self._endings[self._ending_of[i]]
        return Part(ending, self._offsets[i], self._sizes[i], bool(self._plain[i]))

    def _split(self, member: Member) -> tuple[str, str] | None:
        if is_litter(member.name):
            return self._leave("files of macOS")
        if _OURS.match(_HERE.sub(r"\1", member.name)) or os.path.basename(member.name).startswith(
            "__"
        ):
            return self._leave("files of WebDataset's own")
        key, ending = split(member.name)
        return self._leave("hidden files") if key.rpartition("/")[2] == "" else (key, ending)

    def _leave(self, kind: str) -> None:
        self.left[kind] = self.left.get(kind, 0) + 1


def split(name: str) -> tuple[str, str]:
    """Splits a name as WebDataset does, the ending in lower case and without `./`.

    Example:
      >>> split("train/0001.Seg.png"), split("./train/./0001.png")
      (('train/0001', 'seg.png'), ('train/0001', 'png'))
    """
    name = _HERE.sub(r"\1", name)
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending.lower()
