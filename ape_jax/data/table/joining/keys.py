"""What makes images of rows the same image: their path, or their bytes inside of files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ape_jax.data.table.joining.columns import column, hashes
from ape_jax.data.table.joining.groups import Keys, repeated
from ape_jax.errors import UserError
from ape_jax.storage import files
from ape_jax.terminal.progress import track

if TYPE_CHECKING:
    import pyarrow as pa

_PROBE = 4096  # Bytes from the middle of an image, by which nearly all that differ are told apart.


def image_keys(batches: Sequence[pa.RecordBatch]) -> Keys:
    """The keys of all rows; images inside files (tars) are told apart by their bytes.

    A picture that is stored under several names is one image. Only images of equal size, and equal
    bytes in the middle, are read whole.
    """
    keys = hashes(batches, "key")
    offsets = column(batches, "offset")
    inside = np.flatnonzero(offsets >= 0)
    if not len(inside):
        return keys
    sizes = column(batches, "size")[inside]
    same = inside[repeated(sizes[:, None].astype(np.uint64))]
    if not len(same):
        return keys
    reader = _Ranges(batches, offsets)
    probes = reader.hashes(same, _PROBE, "comparing images inside files")
    same = same[repeated(probes)]
    if len(same):
        keys = keys.copy()
        keys[same] = reader.hashes(same, None, "comparing images of equal size")
    return keys


class _Ranges:
    """Reads ranges of files, as rows name them."""

    def __init__(self, batches: Sequence[pa.RecordBatch], offsets: np.ndarray):
        import pyarrow as pa

        self._paths = pa.chunked_array([batch.column("path") for batch in batches])
        self._offsets, self._sizes = offsets, column(batches, "size")

    def hashes(self, rows: np.ndarray, most: int | None, what: str) -> Keys:
        """Hashes of the images of these rows, or of so many bytes in the middle of each.

        Raises:
          UserError: a file cannot be read.
        """
        out = np.zeros((len(rows), 2), np.uint64)
        path: bytes | None = None
        file: BinaryIO = io.BytesIO()
        tracked: Callable[..., Iterator[int]] = track
        for k, row in enumerate(tracked(rows.tolist(), what, len(rows), "images")):
            name = self._paths[row].as_py()
            if name != path:
                file.close()
                path, file = name, _open(name)
            offset, size = int(self._offsets[row]), int(self._sizes[row])
            if most is not None and size > most:
                offset, size = offset + (size - most) // 2, most
            file.seek(offset)
            digest = hashlib.blake2b(file.read(size), digest_size=16).digest()
            out[k] = np.frombuffer(digest, "<u8")
        file.close()
        return out


def _open(path: bytes) -> BinaryIO:
    try:
        return files.opened(path.decode("utf-8", "surrogatepass"))
    except OSError as e:
        name = path.decode("utf-8", "replace")
        raise UserError(f"{name} cannot be read ({e.strerror}); run again") from e
