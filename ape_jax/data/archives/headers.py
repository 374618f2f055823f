"""Headers of an uncompressed tar, in its order, without reading its files.

Archives are not trusted: a header may claim any size, a name may be any length, and an archive may
be cut anywhere. What is read is bounded, and damage is reported as the last item.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

from ape_jax.data.rows import MAX_RECORD_BYTES
from ape_jax.errors import UserError
from ape_jax.storage import files

# A header that extends another holds names and times; tarfile reads it as a whole.
_MOST_EXTENSION = 2**20
_EXTENSIONS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE),
    tarfile.SOLARIS_XHDTYPE,
)
_NOT_TARS = {
    b"version https://git-lfs": "is a pointer of Git LFS; run `git lfs pull`",
    b"<!doctype html": "is a web page and no tar; download the file itself",
    b"<html": "is a web page and no tar; download the file itself",
    b"PK\x03\x04": "is a ZIP archive and no tar; repack it as a tar",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; decompress it with `unzstd`",
}

Kind = Literal["file", "link", "other"]


class Member(NamedTuple):
    """A file of a tar, or what stands for one.

    Attributes:
      name: as written in the tar.
      offset: of its bytes in the tar.
      size: in bytes; they lie within the tar.
      kind: "file"; "link"; "other" for a sparse file, a device or a pipe.
    """

    name: str
    offset: int
    size: int
    kind: Kind


class Damage(NamedTuple):
    """The place behind which a tar cannot be read.

    Attributes:
      offset: of the first byte that is not understood.
      reason: one phrase with the remedy.
    """

    offset: int
    reason: str


class _BoundedInfo(tarfile.TarInfo):
    """A header whose extensions are read only where they are of a sensible size.

    Of plain files only name and size are read, which takes a tenth of the time.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _BoundedInfo:
        """Reads a header; what is not plain is left to tarfile."""
        found = _plain_file(buf)
        if found is None:
            return super().frombuf(buf, encoding, errors)
        name, prefix, size = found
        info = cls(name.decode(encoding, errors))
        if prefix:
            info.name = f"{prefix.decode(encoding, errors)}/{info.name}"
        info.size = size
        return info

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _EXTENSIONS and self.size > _MOST_EXTENSION):
            raise tarfile.ReadError(f"a header claims {self.size} bytes")
        return super()._proc_member(tarfile_)  # pyright: ignore[reportAttributeAccessIssue]: a hook


def _plain_file(buf: bytes | bytearray) -> tuple[bytes, bytes, int] | None:
    """Name, its prefix and size, of a sound header of a plain file; None for any other."""
    if len(buf) != tarfile.BLOCKSIZE or buf[156:157] != tarfile.REGTYPE:
        return None
    try:
        size, checksum = (int(bytes(x).strip(b" \0"), 8) for x in (buf[124:136], buf[148:156]))
    except ValueError:  # Large numbers are binary.
        return None
    if size < 0 or sum(buf) - sum(buf[148:156]) + 256 != checksum:
        return None
    name, prefix = (bytes(x).partition(b"\0")[0] for x in (buf[:100], buf[345:500]))
    return name, prefix, size


def members(path: str) -> Iterator[Member | Damage]:
    """Yields every file of a tar; folders are left out.

    Args:
      path: an uncompressed tar.

    Yields:
      Members in the order of the tar. A `Damage`, if any, is the last.

    Raises:
      UserError: the file is no tar at all.
      OSError: it cannot be opened.
    """
    with files.opened(path) as f:
        size = os.fstat(f.fileno()).st_size
        check_is_tar(path, f)
        end, reason = 0, ""
        try:
            with tarfile.open(fileobj=f, mode="r:", tarinfo=_BoundedInfo) as tar:
                for info in tar:
                    end = info.offset
                    # A negative size would send tarfile backwards, for ever.
                    if info.size < 0 or (info.isreg() and info.offset_data + info.size > size):
                        raise tarfile.ReadError(f"{info.name!r} claims {info.size} bytes")
                    end = tar.offset
                    if not info.isdir():
                        yield Member(info.name, info.offset_data, info.size, _kind(info))
                    # tarfile keeps every header; a shard of millions should not.
                    tar.members = []  # pyright: ignore[reportAttributeAccessIssue]: typeshed omits
                end = tar.offset
        except Exception as e:  # A hostile header can make tarfile raise nearly anything.
            reason = f" ({' '.join(str(e).split())[:200] or type(e).__name__})"
        if reason or not _ends(f, end):
            yield Damage(
                end, f"the tar is damaged or cut at byte {end} of {size}{reason}; repack it"
            )
        elif more := _behind(f, end):
            yield Damage(
                more,
                f"there are bytes behind the tar's end (byte {more} of {size}), as where tars were "
                "joined by `cat`; name both tars, or join them with `tar --concatenate`",
            )


def check_is_tar(path: str, f: BinaryIO) -> None:
    """Raises UserError for files that are often named `.tar` and are none."""
    head = f.read(32)
    f.seek(0)
    for magic, words in _NOT_TARS.items():
        if head.lower().startswith(magic.lower()):
            raise UserError(f"{path}: this {words}")


def read_text(f: BinaryIO, offset: int, size: int) -> str:
    """Reads a text of a tar, UTF-8 with or without a byte order mark.

    Raises:
      ValueError: it is larger than a record may be, or not UTF-8; one phrase.
    """
    if size > MAX_RECORD_BYTES:
        raise ValueError(f"it has {size} bytes, more than {MAX_RECORD_BYTES}; shorten it")
    f.seek(offset)
    try:
        return f.read(size).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"it is not UTF-8 text (byte {e.start}); save it as UTF-8") from e


def _kind(info: tarfile.TarInfo) -> Kind:
    if info.issym() or info.islnk():
        return "link"
    return "file" if info.isreg() and not info.issparse() else "other"


def _ends(f: BinaryIO, end: int) -> bool:
    """Tests for the block of zeros that ends a tar.

    tarfile takes a damaged header behind the first member for the end of the archive.
    """
    f.seek(end)
    return f.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _behind(f: BinaryIO, end: int) -> int:
    """The first block behind the end that is not zeros, in the next MiB; 0 where there is none."""
    f.seek(end)
    padding = f.read(2**20)
    at = len(padding) - len(padding.lstrip(b"\0"))
    return end + at // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE if at < len(padding) else 0
