"""NumPy's archives: members that are not compressed are mapped in place."""

from __future__ import annotations

import io
import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ape_jax.data.precomputed import npy
from ape_jax.data.precomputed.file_array import FileArray, in_memory
from ape_jax.errors import UserError
from ape_jax.storage import files
from ape_jax.storage.rows.mapped import Part

MEMBERS = ("image", "text", "text_offsets", "owner")
_METHODS = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_LOCAL = 30  # Bytes of a member's local header, before its name.
_LARGE = 2**28  # Bytes of a compressed member up to which its ratio does not matter.
_RATIO = 50  # Features hardly compress.
_READ = 2**24  # Bytes read at a time.


def read_npz(path: str, key: str, most: int) -> Mapping[str, FileArray]:
    """The arrays of an archive, by name.

    Args:
      path: the file.
      key: the config key to name in messages.
      most: bytes that compressed members may take in memory, together.

    Raises:
      UserError: a missing or damaged file, other members than `MEMBERS`, members that are larger in
        memory than they may be.
    """
    try:
        opened = files.opened(path, f"{key}: {path!r}")
        with opened, zipfile.ZipFile(opened) as archive:
            members = _members(archive, path, key)
            _check_sizes(members.values(), path, key, most)
            return {name: _read(archive, info, path, key) for name, info in members.items()}
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{key}: there is no file {path!r}; correct the path") from None
    except (ValueError, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise npy.unreadable(path, error, key) from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, MemoryError) as error:
        raise npy.unreadable(path, error, key) from error


def _members(archive: zipfile.ZipFile, path: str, key: str) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    names = [info.filename.removesuffix(".npy") for info in infos[: 2 * len(MEMBERS)]]
    if len(set(names)) < len(names):
        raise ValueError("two members have the same name")
    if set(names) - set(MEMBERS) or not {"image", "text"} <= set(names):
        shown = ", ".join(map(repr, sorted(names))) or "nothing"
        raise UserError(
            f"{key}: {path!r} holds {shown[:200]}; write 'image', 'text' and, if wanted, "
            "'text_offsets' and 'owner'"
        )
    return dict(zip(names, infos, strict=True))


def _check_sizes(infos: Iterable[zipfile.ZipInfo], path: str, key: str, most: int) -> None:
    """Refuses what would fill the memory, before any of it is read."""
    packed = [info for info in infos if info.compress_type != zipfile.ZIP_STORED]
    for info in packed:
        if info.compress_type not in _METHODS:
            # A header of LZMA may ask for 4 GiB before a byte is read.
            raise UserError(
                f"{key}: {path!r}: {info.filename!r} is compressed in a way that NumPy does not "
                "write; write it with numpy.savez"
            )
        if info.file_size > max(_LARGE, _RATIO * info.compress_size):
            raise UserError(
                f"{key}: {path!r}: {info.filename!r} grows from {info.compress_size:,} bytes to "
                f"{info.file_size:,} when it is unpacked, as no features do; write it with "
                "numpy.savez or as .npy files, which are not compressed"
            )
    total = sum(info.file_size for info in packed)
    if total > most:
        raise UserError(
            f"{key}: {path!r} is compressed and would take {total / 1e9:.1f} GB of memory, at most "
            f"{most / 1e9:.1f} GB are; write it with numpy.savez or as .npy files, which are mapped"
        )


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, key: str) -> FileArray:
    with archive.open(info) as member:
        assert isinstance(member, io.BufferedIOBase)
        shape, fortran, dtype = npy.header(member)
        begin = member.tell()
        dtype = npy.known_type(dtype, f"{path} ({info.filename})")
        size = math.prod(shape) * dtype.itemsize
        if begin + size > info.file_size:
            raise ValueError(f"{info.filename!r} is shorter than its header {list(shape)} says")
        in_rows = not fortran or math.prod(shape) == max(shape, default=1)
        if info.compress_type == zipfile.ZIP_STORED and in_rows:
            offset = _start(Path(path), info) + begin
            if offset + size > os.path.getsize(path):
                raise ValueError(f"{info.filename!r} goes beyond the end of the file")
            part = Part(Path(path), shape[0] if shape else 1, offset)
            return FileArray(shape=shape, dtype=dtype, parts=(part,))
        if not in_rows and size > _LARGE:
            raise ValueError(f"{info.filename!r} is in Fortran's order; save ascontiguousarray")
        values = np.empty(size, np.uint8)
        _fill(member, memoryview(values.data))
    values = values.view(dtype).reshape(shape, order="F" if fortran else "C")
    return in_memory(np.ascontiguousarray(values))


def _fill(member: io.BufferedIOBase, into: memoryview) -> None:
    done = 0
    while done < len(into):
        count = member.readinto(into[done : done + _READ])
        if not count:
            raise ValueError("a member ends early")
        done += count


def _start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a member's own bytes begin."""
    with files.opened(path) as file:
        file.seek(info.header_offset)
        local = file.read(_LOCAL)
    if len(local) < _LOCAL or local[:4] != b"PK\x03\x04":
        raise ValueError(f"the header of {info.filename!r} is damaged")
    name, extra = (int.from_bytes(local[at : at + 2], "little") for at in (26, 28))
    return info.header_offset + _LOCAL + name + extra
