"""WebDataset tars: members that share a name up to the first dot are one record.

The headers of a plain tar are read once; an image is then one seek and one read, in any order and
from any thread, so shards are shuffled exactly and never rewritten or extracted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tarfile
from collections.abc import Iterator
from typing import Any

from ape_jax.data.cells import Unusable, printable
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.rows import MAX_RECORD_BYTES, Ask, Broken, Embedded, FileRows, Row
from ape_jax.errors import UserError

_IMAGES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff")


@dataclasses.dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    size: int


def read_tar(path: str, ask: Ask) -> FileRows:
    """Reads one uncompressed shard.

    Captions come from the `.txt` member (one caption) or from `caption` or `captions` of the
    `.json` member, which may also hold `id` and `label`; a `.cls` member is a label. Members with
    other endings are not read.

    Records without an image, with two, or with text that is not UTF-8 or not JSON, are broken.
    """
    return FileRows(rows=_records(path), named=True)


def _records(path: str) -> Iterator[Row | Broken]:
    """Reads one shard.

    Raises:
      UserError: the shard is damaged or cut, a member is there twice, or a link is where a file
        should be.
    """
    members: dict[str, _Member] = {}
    current, seen = None, set()
    with open(path, "rb") as f:
        for member in _members(path):
            name, ending = _split(member.name)
            if current is not None and name != current:
                yield _record(f, path, current, members)
                members = {}
            if name != current and name in seen:
                raise UserError(
                    f"{path}:{printable(name)}: the key is also that of another image; put the "
                    "members of a record one after the other, under a key of their own"
                )
            seen.add(name)
            current = name
            if ending in members:
                raise UserError(f"{path}: the member {member.name!r} is there twice; remove one")
            members[ending] = member
        if current is not None:
            yield _record(f, path, current, members)


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


def _record(f: Any, path: str, name: str, members: dict[str, _Member]) -> Row | Broken:
    images = [e for e in members if e in _IMAGES]
    if len(images) != 1:
        endings = ", ".join(f".{printable(e)}" for e in members)
        reason = (
            f"found {len(images)} images among the members {endings}; put one image (.png, .jpg, "
            ".webp, ...) in each record"
        )
        return Broken(printable(name), "no image" if not images else "several images", reason)
    image = members[images[0]]
    try:
        fields = _read_fields(f, members)
    except Unusable as e:
        at, _, reason = e.reason.partition(": ")
        return Broken(at, e.kind, reason)
    fields["image"] = Embedded(path, image.offset, image.size)
    return Row(printable(image.name), fields, f"/{name}")


def _read_fields(f: Any, members: dict[str, _Member]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if "json" in members:
        name = members["json"].name
        try:
            read = json.loads(_read_text(f, members["json"]))
        except (ValueError, RecursionError) as e:
            if isinstance(e, Unusable):
                raise
            reason = f"{printable(name)}: this is not JSON ({' '.join(str(e).split())})"
            raise Unusable("damaged row", reason) from e
        if not isinstance(read, dict):
            reason = f"{printable(name)}: write a JSON object with 'caption' or 'captions'"
            raise Unusable("damaged row", reason)
        fields = {k: read[k] for k in ("caption", "captions", "label", "id") if k in read}
        single = fields.pop("caption", None)
        if single is not None and fields.get("captions") is None:
            fields["captions"] = single
    if "txt" in members:
        # img2dataset writes the caption into both; the text member is the convention.
        fields["captions"] = _read_text(f, members["txt"])
    if "cls" in members:
        fields["label"] = _read_text(f, members["cls"]).strip()
    return fields


def _read_text(f: Any, member: _Member) -> str:
    if member.size > MAX_RECORD_BYTES:
        reason = f"{printable(member.name)}: {member.size} bytes, more than {MAX_RECORD_BYTES}"
        raise Unusable("damaged row", reason)
    f.seek(member.offset)
    try:
        return f.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        name = printable(member.name)
        reason = f"{name}: the member is not UTF-8 text (byte {e.start}); save it as UTF-8"
        raise Unusable("not UTF-8", reason) from e


WEBDATASET = PairsFormat(
    name="webdataset",
    spec="*.tar (or several, as in shard-{000..003}.tar)",
    suffixes=(".tar",),
    read=read_tar,
)
