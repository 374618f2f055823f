"""Reads own features once: are all values finite, and what is their digest?

What was found is kept in the cache folder under the paths, sizes and times of the files, so that
the next start need not read them again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from ape_jax.data.precomputed.file_array import BFLOAT16
from ape_jax.errors import UserError
from ape_jax.storage import sealed
from ape_jax.storage.disk import cache_dir
from ape_jax.storage.row_array import RowArray, blocks
from ape_jax.terminal.progress import track

_VERSION = 1
_BLOCK = 2**24  # Bytes looked at together.
_SMALL = 2**26  # Bytes that are read again at every start.
# A file that has just been written may be written again within the same tick of its clock.
_SETTLED = 2.0


@runtime_checkable
class Hash(Protocol):
    """A hash of `hashlib`."""

    def update(self, part: bytes | memoryview, /) -> None:
        """Hashes more."""

    def hexdigest(self) -> str:
        """The digest so far."""
        ...


def digest(total: Hash, head: Iterable[bytes], arrays: Mapping[str, RowArray], where: str) -> str:
    """The sha256 of vectors, after what stands before them; all values are finite.

    Args:
      total: what has been hashed.
      head: what is hashed next.
      arrays: the arrays, by name.
      where: the config key and the files, for messages.

    Raises:
      UserError: naming the first row that is not finite.
    """
    for part in head:
        total.update(part)
    for name, rows in arrays.items():
        total.update(repr((rows.shape, rows.dtype.str)).encode())
        size = max(_BLOCK // (rows.nbytes // len(rows) or 1), 1)
        count = -(-len(rows) // size)
        for block in track(blocks(len(rows), size), f"looking at {name}", count, "blocks of 16 MB"):
            with np.errstate(over="ignore"):  # An f64 beyond f32 is found as infinite.
                values = np.ascontiguousarray(rows[block])
            finite = is_finite(values)
            if not finite.all():
                row = block.start + int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
                raise UserError(f"{where}: row {row} of {name!r} is not finite; correct it")
            total.update(values.view(np.uint8).data)
    return total.hexdigest()


def is_finite(values: np.ndarray) -> np.ndarray:
    """Where values are finite; of bfloat16 by its exponent, which is much faster."""
    if values.dtype == BFLOAT16:
        return (values.view(np.uint16) & 0x7F80) != 0x7F80
    return np.isfinite(values) if np.issubdtype(values.dtype, np.floating) else np.ones(1, bool)


class Record:
    """What was found when files were read, as long as they stay the same.

    Args:
      files: the files.
    """

    def __init__(self, files: Sequence[str]):
        states = [(os.path.abspath(file), os.stat(file)) for file in files]
        self._stamp = [f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in states]
        self._is_kept = (
            sum(state.st_size for _, state in states) >= _SMALL
            and time.time() - max(state.st_mtime for _, state in states) > _SETTLED
        )
        name = hashlib.sha256(repr((_VERSION, [path for path, _ in states])).encode())
        self._name = f"{name.hexdigest()[:32]}.json"

    def read(self) -> str | None:
        """The digest, None where the files were not read as they are now."""
        if not self._is_kept:
            return None
        try:
            found = sealed.read(self._path)
        except (FileNotFoundError, UserError):  # Damaged: looked at again.
            return None
        return found["digest"] if found.get("files") == self._stamp else None

    def write(self, value: str) -> None:
        """Keeps the digest, where the cache folder can be written."""
        if self._is_kept:
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                sealed.write(self._path, {"digest": value, "files": self._stamp})

    @property
    def _path(self) -> Path:
        return cache_dir() / "vectors" / self._name
