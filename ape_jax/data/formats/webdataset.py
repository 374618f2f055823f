"""WebDataset tars: members that share a name up to the first dot are one record.

The headers of a plain tar are read once; an image is then one seek and one read, in any order and
from any thread, so shards are shuffled exactly and never rewritten or extracted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from ape_jax.data.archives import headers
from ape_jax.data.archives.compressed import decompressed
from ape_jax.data.archives.records import Index, Part, Record
from ape_jax.data.cells import printable
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.sidecars import TEXTS, Sidecars, Unreadable
from ape_jax.data.rows import Ask, Broken, Embedded, FileRows, Row
from ape_jax.errors import UserError
from ape_jax.images.formats import HEAD, IMAGE_ENDINGS, is_image_content
from ape_jax.storage import files

_IMAGES = tuple(ending[1:] for ending in IMAGE_ENDINGS)
_READ = (*TEXTS, "json", "cls")
# Known to be no images; the content of others is looked at.
_NO_IMAGES = (*_READ, "npy", "npz", "pt", "pth", "pickle", "pkl", "pyd", "mp4", "wav", "md5")


def read_tar(path: str, ask: Ask) -> FileRows:
    """Reads one shard; a compressed one by a copy in the cache folder.

    Captions, id and label are in the texts and the JSON beside an image (`sidecars`). The image is
    known by its ending, or by its content where the ending is none of an image.

    Args:
      path: the tar file.
      ask: what is asked; its columns are names of endings (`caption.txt`, `seg.png`) and of fields
        of `.json`.
    """
    reader = _Reader(path, ask)
    return FileRows(rows=reader, named=reader.named)


class _Reader:
    """Rows of one shard, which is opened when they are read."""

    def __init__(self, path: str, ask: Ask):
        self._path, self._ask = path, ask
        self._sidecars = Sidecars(ask, "tars")
        self.named = self._sidecars.named
        self._left: dict[str, None] = {}

    def __iter__(self) -> Iterator[Row | Broken]:
        plain = decompressed(self._path, self._ask.say)
        index = Index(self._path, headers.members(plain))
        if index.damage is not None and not len(index):
            raise UserError(f"{self._path}: {index.damage.reason}")
        with files.opened(plain) as f:
            for record in index:
                for one in self._split(record, f):
                    yield self._row(one, f, plain)
        if index.damage is not None:
            yield Broken(f"byte {index.damage.offset}", "damaged tar", index.damage.reason)
        for kind in (*sorted(index.left), *(f"members .{ending}" for ending in sorted(self._left))):
            self._ask.say(f"tars: {kind} are not read")

    def _split(self, record: Record, f: BinaryIO) -> Iterator[Record]:
        """A record, or several where keys have dots: `a.0.jpg a.0.txt a.1.jpg a.1.txt`."""
        images = _images(record.parts, f)
        stems = {image.ending.rpartition(".")[0] for image in images}
        if len(images) < 2 or "" in stems or len(stems) < len(images):
            yield record
            return
        self._ask.say(
            f"tars: several images share the key {record.key!r} up to the first dot; they are "
            "records of their own, with keys up to the last dot"
        )
        by_stem: dict[str, list[Part]] = {}
        for part in record.parts:
            stem, _, ending = part.ending.rpartition(".")
            by_stem.setdefault(stem, []).append(part._replace(ending=ending))
        for stem, parts in by_stem.items():
            yield Record(f"{record.key}.{stem}" if stem else record.key, tuple(parts))

    def _row(self, record: Record, f: BinaryIO, plain: str) -> Row | Broken:
        at = printable(record.key)
        if problem := _problem(record):
            return Broken(at, "damaged row", problem)
        images = _images(record.parts, f)
        self._note_left(record, images)
        cells = {part.ending: Embedded(plain, part.offset, part.size) for part in images}
        chosen = self._ask.columns.get("image", ())
        if len(images) == 1:
            cells["image"] = cells[images[0].ending]
        elif not chosen:
            return _not_one(at, images, record)
        texts = [
            (part.ending, functools.partial(headers.read_text, f, part.offset, part.size))
            for part in record.parts
        ]
        try:
            fields = self._sidecars.fields(texts, cells)
        except Unreadable as e:
            return Broken(f"{at}.{e.ending}", "damaged row", e.reason)
        # As messages about an image name it.
        member = f"{record.key}.{images[0].ending}" if len(images) == 1 else record.key
        return Row(printable(member.removesuffix(".")), fields, f"/{record.key}")

    def _note_left(self, record: Record, images: Sequence[Part]) -> None:
        for part in record.parts:
            if part.ending.rpartition(".")[2] not in _READ and part not in images:
                if len(self._left) < 8 and part.ending.isprintable():
                    self._left[part.ending] = None


def _images(parts: Sequence[Part], f: BinaryIO) -> list[Part]:
    """The images of a record: by the whole ending, else by its last part, else by content."""
    whole = [part for part in parts if part.ending in _IMAGES]
    last = whole or [part for part in parts if part.ending.rpartition(".")[2] in _IMAGES]
    return last or [part for part in parts if _might_be_image(part) and _holds_image(part, f)]


def _might_be_image(part: Part) -> bool:
    return part.plain and part.size > HEAD and part.ending.rpartition(".")[2] not in _NO_IMAGES


def _holds_image(part: Part, f: BinaryIO) -> bool:
    f.seek(part.offset)
    return is_image_content(f.read(HEAD))


def _problem(record: Record) -> str:
    """What makes a record useless, a phrase with the remedy; "" for nothing."""
    seen: set[str] = set()
    for part in record.parts:
        name = printable(f"{record.key}.{part.ending}")
        if part.ending in seen:
            return f"the member {name!r} is there twice; remove one"
        if not part.plain:
            return f"the member {name!r} is no plain file; pack files, and of links what they name"
        seen.add(part.ending)
    return ""


def _not_one(at: str, images: Sequence[Part], record: Record) -> Broken:
    listed = ", ".join(f".{printable(part.ending)}" for part in record.parts[:12])
    return Broken(
        at,
        "several images" if images else "no image",
        f"found {len(images)} images among the members {listed}; put one image (.png, .jpg, .webp, "
        "...) in each record",
    )


WEBDATASET = PairsFormat(
    name="webdataset",
    spec="*.tar (or several, as in shard-{000..003}.tar)",
    suffixes=(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"),
    read=read_tar,
    prepare=decompressed,
)
