"""NumPy's files: where the rows of an array lie in a .npy file, without reading them."""

from __future__ import annotations

import functools
import io
import math
import os
import struct
import tokenize
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ape_jax.data.precomputed.file_array import BFLOAT16, FileArray, in_memory
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.storage import files
from ape_jax.storage.rows.mapped import Part

_HEADER = 10_000  # Bytes; NumPy's own limit for headers of strangers.
_REORDERED = 2**28  # Bytes of an array in Fortran's order, which is turned in memory.


def read_npy(path: str, key: str) -> FileArray:
    """The array of a .npy file; its header is read, and its rows stay where they are.

    Args:
      path: the file.
      key: the config key to name in messages.

    Raises:
      UserError: a missing or damaged file, one that is shorter than its header says, an array of
        Python objects or of fields.
    """
    try:
        with files.opened(path, f"{key}: {path!r}") as file:
            size = os.fstat(file.fileno()).st_size
            shape, fortran, dtype = header(file)
            offset = file.tell()
    except FileNotFoundError:
        raise UserError(f"{key}: there is no file {path!r}; correct the path") from None
    except (ValueError, OSError) as error:
        raise unreadable(path, error, key) from error
    dtype = known_type(dtype, path)
    held = math.prod(shape) * dtype.itemsize
    if offset + held > size:
        raise UserError(
            f"{key}: {path!r} is an array {list(shape)} of {dtype.name} by its header, "
            f"{held:,} bytes, but holds {max(size - offset, 0):,}; it was cut short or is damaged, "
            "write it again"
        )
    if fortran and math.prod(shape) != max(shape, default=1):
        return in_memory(_turned(path, offset, shape, dtype, key))
    part = Part(Path(path), shape[0] if shape else 1, offset)
    return FileArray(shape=shape, dtype=dtype, parts=(part,))


def header(file: BinaryIO | io.BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the order is Fortran's, and type; the file is then at the first element.

    Raises:
      ValueError: for anything but the header of an array of plain elements.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the format is for arrays with fields")
        begin, width = file.tell(), 2 if version == (1, 0) else 4
        (length,) = struct.unpack("<H" if width == 2 else "<I", file.read(width).ljust(4)[:width])
        if length > _HEADER:
            raise ValueError(f"a header of {length} bytes")
        file.seek(begin)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
    except (SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ValueError(f"its header is damaged ({type(error).__name__})") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not unpickled")
    if dtype.names or dtype.subdtype:
        raise ValueError("it holds records of several fields")
    if any(isinstance(size, bool) or size < 0 for size in shape):
        raise ValueError(f"its shape is {shape}")
    return shape, fortran, dtype


def known_type(dtype: np.dtype, path: str) -> np.dtype:
    """The type of elements: NumPy saves bfloat16 as two bytes without a type, which is said."""
    if dtype.kind != "V" or dtype.itemsize != 2:
        return dtype
    if hosts.is_first():
        _say_bfloat16(os.path.dirname(path) or os.curdir)
    return BFLOAT16


def unreadable(path: str, error: Exception, key: str) -> UserError:
    """The error for a file that does not hold plain arrays."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    short = " ".join(reason.split())[:160]
    return UserError(f"{key}: {path!r} cannot be read as plain arrays ({short})")


def _turned(
    path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype, key: str
) -> np.ndarray:
    """An array in C's order, in memory."""
    size = math.prod(shape) * dtype.itemsize
    if size > _REORDERED:
        raise UserError(
            f"{key}: {path!r} holds columns end to end (Fortran's order) and not rows, "
            f"{size / 1e9:.1f} GB; save numpy.ascontiguousarray of it"
        )
    with files.opened(path) as file:
        file.seek(offset)
        values = np.frombuffer(file.read(size), dtype)
    return np.ascontiguousarray(values.reshape(shape, order="F"))


@functools.cache  # Once a folder, of which each shard says the same.
def _say_bfloat16(folder: str) -> None:
    hosts.say(f"{folder}: two bytes without a type are taken as bfloat16")
