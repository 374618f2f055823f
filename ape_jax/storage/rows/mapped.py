"""Rows of files that are read where they are asked for: an array that is not in memory.

Files are mapped when a row of them is first wanted. Their pages belong to the operating system,
which drops and reads them again as it needs memory; what is copied are the rows asked for.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from ape_jax.errors import UserError

_ALIGNMENT = 64  # Bytes; what XLA asks of a buffer.
_MAPS = 4096  # Files of one array that are mapped at a time; Linux allows 65,530 of a process.
_READERS = 4  # Threads that read files whole.
_LONG_RUN = 4  # Consecutive rows that are worth a copy of their own.


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows that lie end to end in a file.

    Attributes:
      path: the file.
      rows: how many.
      offset: bytes before the first.
    """

    path: Path
    rows: int
    offset: int = 0


class MappedRows:
    """An array [n, ...] in files, read by rows.

    It is indexed as an ndarray is, by a slice of rows, by an integer array of rows, or by two
    integer arrays of rows and places in them, and gives a copy of what was asked for. It pickles
    by the names of its files.

    Args:
      parts: the files with the rows, in order.
      shape: shape of one row.
      dtype: type of the elements in the files.
      read_as: type that rows are converted to as they are read; None for that of the files.

    Attributes:
      parts: likewise.
      shape: (n, *shape).
      dtype: type of what is read.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "a"
      ...     _ = path.write_bytes(np.arange(6, dtype="<f4").tobytes())
      ...     rows = MappedRows([Part(path, 2), Part(path, 1, 8)], (2,), np.dtype("<f4"))
      ...     rows.shape, rows[np.array([2, 1])].tolist()
      ((3, 2), [[2.0, 3.0], [2.0, 3.0]])
    """

    def __init__(
        self,
        parts: Sequence[Part],
        shape: Sequence[int],
        dtype: np.dtype,
        read_as: np.dtype | None = None,
    ):
        self.parts = tuple(part for part in parts if part.rows)
        self._stored, self.dtype = np.dtype(dtype), np.dtype(read_as or dtype)
        self._starts = np.cumsum([0, *(part.rows for part in self.parts)])
        self.shape = (int(self._starts[-1]), *(int(size) for size in shape))
        self._maps = functools.lru_cache(maxsize=_MAPS)(self._map)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedRows, (self.parts, self.shape[1:], self._stored, self.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"MappedRows({self.dtype.name}{list(self.shape)} in {len(self.parts)} files)"

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def places(self) -> MappedRows:
        """The same elements as rows one level down: [n, V, ...] -> [n * V, ...]."""
        count = self.shape[1]
        parts = [dataclasses.replace(part, rows=part.rows * count) for part in self.parts]
        return MappedRows(parts, self.shape[2:], self._stored, self.dtype)

    def __getitem__(self, key: Any) -> Shaped[np.ndarray, "..."]:
        if isinstance(key, tuple):
            rows, place = np.broadcast_arrays(*map(np.asarray, key))
            return self._places[inside(rows, len(self)) * self.shape[1] + place]
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._run(start, max(stop, start))
            return self.take(np.arange(start, stop, step))
        index = np.asarray(key)
        if index.dtype.kind not in "iu":
            raise TypeError(f"rows are chosen by a slice or integers, found {index.dtype.name}")
        return self.take(index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows of files are in memory only as a copy")
        whole = self.read()
        return whole if dtype is None else whole.astype(dtype, copy=False)

    @functools.cached_property
    def _places(self) -> MappedRows:
        return self.places

    def take(
        self,
        indices: Int[np.ndarray, "..."],
        axis: int = 0,
        out: np.ndarray | None = None,
        mode: str = "raise",
    ) -> Shaped[np.ndarray, "..."]:
        """Copies rows, as `ndarray.take` does along the first axis.

        Args:
          indices: rows.
          axis: 0.
          out: where they are written, contiguous; None for a new array.
          mode: for compatibility; indices are always checked.
        """
        if axis:
            raise ValueError("only whole rows are taken")
        if out is None:
            out = np.empty((*indices.shape, *self.shape[1:]), self.dtype)
        elif out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ValueError("out must be contiguous and of the type of the rows")
        if indices.size:
            flat = inside(indices.reshape(-1), len(self))
            self._gather(flat, self._elements(out).reshape(len(flat), -1))
        return out

    def read(self) -> Shaped[np.ndarray, "..."]:
        """Reads all rows into memory, where a CPU device can use them without a copy.

        Raises:
          UserError: where a file cannot be read, or is shorter than it was.
        """
        whole = aligned(self.shape, self.dtype)
        if self._stored != self.dtype:
            if len(self):
                self._copy(0, whole.reshape(len(self), -1))
            return whole
        into = _raw(whole).reshape(-1).view(np.uint8).data
        size = self.nbytes // max(len(self), 1)

        def fill(k: int) -> None:
            part, start = self.parts[k], int(self._starts[k]) * size
            try:
                with part.path.open("rb", buffering=0) as file:
                    file.seek(part.offset)
                    stop = start + part.rows * size
                    while start < stop:
                        if not (count := file.readinto(into[start:stop])):
                            raise _shorter(part)
                        start += count
            except OSError as error:
                raise _unreadable(part, error) from None

        with ThreadPoolExecutor(_READERS) as pool:
            for _ in pool.map(fill, range(len(self.parts))):
                pass
        return whole

    def _gather(self, index: Int[np.ndarray, "k"], out: np.ndarray) -> None:
        """Copies rows: by runs of consecutive ones, or file by file."""
        breaks = np.flatnonzero(np.diff(index) != 1) + 1
        if (len(breaks) + 1) * _LONG_RUN <= len(index):
            begins = np.concatenate([[0], breaks]).tolist()
            for begin, end in zip(begins, [*begins[1:], len(index)], strict=True):
                self._copy(int(index[begin]), out[begin:end])
            return
        where = np.searchsorted(self._starts, index, side="right") - 1
        order = np.argsort(where, kind="stable")
        where, local = where[order], (index - self._starts[where])[order]
        ends = [*(np.flatnonzero(np.diff(where)) + 1).tolist(), len(index)]
        begin = 0
        for end in ends:
            out[order[begin:end]] = self._maps(int(where[begin]))[local[begin:end]]
            begin = end

    def _run(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        if stop > start:
            self._copy(start, self._elements(out).reshape(stop - start, -1))
        return out

    def _copy(self, start: int, out: np.ndarray) -> None:
        """Copies consecutive rows, of one file or several."""
        k, done = int(np.searchsorted(self._starts, start, side="right")) - 1, 0
        while done < len(out):
            first = start + done - int(self._starts[k])
            piece = self._maps(k)[first : first + len(out) - done]
            out[done : done + len(piece)] = piece
            done, k = done + len(piece), k + 1

    def _map(self, k: int) -> np.ndarray:
        """The rows of a file, [rows, elements]; not to be converted, of integers of their width."""
        import pyarrow as pa

        part, width = self.parts[k], math.prod(self.shape[1:])
        need = part.offset + part.rows * width * self._stored.itemsize
        try:
            # The map outlives the file, which is closed: thousands would be too many open ones.
            with pa.memory_map(str(part.path)) as file:
                if file.size() < need:
                    raise _shorter(part)
                content = file.read_buffer()
        except OSError as error:
            raise _unreadable(part, error) from None
        unit = self._stored if self._stored != self.dtype else _integers(self.dtype)
        return np.frombuffer(content, unit, part.rows * width, part.offset).reshape(-1, width)

    def _elements(self, out: np.ndarray) -> np.ndarray:
        """What rows are copied into: values where they are converted, else plain bits."""
        return out if self._stored != self.dtype else _raw(out)


def aligned(shape: Sequence[int], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
    """An empty array that a CPU device can take as its own: JAX copies others, all of them."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def inside(index: np.ndarray, count: int) -> np.ndarray:
    """Indices from the front, as i64.

    Raises:
      IndexError: one lies outside.
    """
    index = index.astype(np.int64, copy=False)
    if index.size and (index.min() < -count or index.max() >= count):
        raise IndexError(f"rows {index.min()} to {index.max()} of {count} were asked for")
    return np.where(index < 0, index + count, index) if index.size and index.min() < 0 else index


def _integers(dtype: np.dtype) -> np.dtype:
    """Integers as wide as a type: NumPy copies its own types faster than others."""
    return np.dtype(f"u{dtype.itemsize}")


def _raw(array: np.ndarray) -> np.ndarray:
    return array.view(_integers(array.dtype))


def _shorter(part: Part) -> UserError:
    return UserError(
        f"features: {part.path} is shorter than it was when it was opened; "
        "nothing may write it while it is in use"
    )


def _unreadable(part: Part, error: OSError) -> UserError:
    return UserError(f"features: {part.path} cannot be read ({error.strerror or error})")
