"""WebDataset tars: members that share a name up to the first dot are one record.

The headers of a plain tar are read once; an image is then one seek and one read, in any order and
from any thread, so shards are shuffled exactly and never rewritten or extracted.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.records import MAX_RECORD_BYTES, Record, decode_text, printable
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef

_IMAGES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff")


@dataclasses.dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    size: int


def read_tar(path: str, wanted: Sequence[str], key: str) -> Iterator[Record]:
    """Reads one uncompressed shard.

    Captions come from the `.txt` member (one caption) or from `caption` or `captions` of the
    `.json` member, which may also hold `id` and `label`; a `.cls` member is a label. Members with
    other endings are not read.

    Args:
      path: the tar file.
      wanted, key: not used: messages name shard and member.

    Raises:
      UserError: the shard is damaged or cut, a record has no image, a link is where a file should
        be, or text is not UTF-8 or not JSON.
    """
    members: dict[str, _Member] = {}
    current = None
    with open(path, "rb") as f:
        for member in _members(path):
            name, ending = _split(member.name)
            if current is not None and name != current:
                yield _record(path, f, current, members)
                members = {}
            current = name
            if ending in members:
                raise UserError(f"{path}: the member {member.name!r} is there twice; remove one")
            members[ending] = member
        if current is not None:
            yield _record(path, f, current, members)


def _split(name: str) -> tuple[str, str]:
    """`train/0001.seg.png` -> (`train/0001`, `seg.png`), as WebDataset does."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending.lower()


def _members(path: str) -> Iterator[_Member]:
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if info.size < 0:  # Would send tarfile backwards, for ever.
                    raise tarfile.ReadError("a member of negative size")
                if info.isdir() or os.path.basename(info.name).startswith("__"):
                    continue  # WebDataset's own metadata members.
                if not info.isreg() or info.issparse():
                    raise UserError(
                        f"{path}: the member {info.name!r} is not a plain file; pack files"
                    )
                yield _Member(info.name, info.offset_data, info.size)
                # tarfile keeps every header; a shard of millions should not.
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]: typeshed omits it
            end = tar.offset
    except (tarfile.TarError, EOFError, ValueError, OSError) as e:
        if isinstance(e, UserError):
            raise
        reason = " ".join(str(e).split())
        raise UserError(f"{path}: the tar is damaged or compressed ({reason}); repack it") from e
    _check_end(path, end)


def _check_end(path: str, end: int) -> None:
    # tarfile takes a damaged header behind the first member for the end of the archive; only a
    # block of zeros is.
    with open(path, "rb") as f:
        f.seek(end)
        if f.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE):
            return
    raise UserError(
        f"{path}: the tar is damaged or cut at byte {end} of {os.path.getsize(path)}; repack it"
    )


def _record(path: str, f: Any, name: str, members: dict[str, _Member]) -> Record:
    where = f"{path}:{printable(name)}"
    images = [e for e in members if e in _IMAGES]
    if len(images) != 1:
        endings = ", ".join(f".{printable(e)}" for e in members)
        raise UserError(
            f"{where}: found {len(images)} images among the members {endings}; "
            "put one image (.png, .jpg, .webp, ...) in each record"
        )
    image = members[images[0]]
    fields = _read_fields(f, members, where)
    ref = ImageRef(
        functools.partial(_read_at, path, image.offset, image.size),
        f"{path}:{printable(image.name)}",
        image.size,
    )
    identity = (os.path.abspath(path), image.offset)
    return Record(where, ref, f"{os.path.basename(path)}/{name}", identity, fields)


def _read_fields(f: Any, members: dict[str, _Member], where: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "json" in members:
        try:
            read = json.loads(_read_text(f, members["json"], where))
        except (ValueError, RecursionError) as e:
            if isinstance(e, UserError):
                raise
            raise UserError(f"{where}.json: this is not JSON ({' '.join(str(e).split())})") from e
        if not isinstance(read, dict):
            raise UserError(f"{where}.json: write a JSON object with 'caption' or 'captions'")
        fields = {k: read[k] for k in ("caption", "captions", "label", "id") if k in read}
    if "txt" in members:
        # img2dataset writes the caption into both; the text member is the convention.
        fields.pop("captions", None)
        fields["caption"] = _read_text(f, members["txt"], f"{where}.txt")
    if "cls" in members:
        fields["label"] = _read_text(f, members["cls"], f"{where}.cls").strip()
    return fields


def _read_text(f: Any, member: _Member, where: str) -> str:
    if member.size > MAX_RECORD_BYTES:
        raise UserError(
            f"{where}: {member.name!r} has {member.size} bytes, more than {MAX_RECORD_BYTES}"
        )
    f.seek(member.offset)
    return decode_text(f.read(member.size), where, "member")


def _read_at(path: str, offset: int, size: int) -> bytes:
    with open(path, "rb") as f:
        f.seek(offset)
        return f.read(size)


WEBDATASET = PairsFormat(
    name="webdataset",
    spec="*.tar (or several, as in shard-{000..003}.tar)",
    suffixes=(".tar",),
    read=read_tar,
)
