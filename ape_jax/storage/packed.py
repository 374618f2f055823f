"""Compressed files that somebody else wrote, decompressed as a stream in bounded memory.

What a file grows to is for its reader to bound: it knows what it reads.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from ape_jax.storage import files

XZ_MEMORY = 1 << 28
"""Bytes that decompressing xz may take; `xz -9` takes 65 MiB, and a header may ask for 4 GiB."""

DAMAGED = (EOFError, zlib.error, lzma.LZMAError, OSError)
"""What reading a damaged stream raises."""

_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_BLOCK = 1 << 16


def kind_of(head: bytes) -> str:
    """How a file is compressed by its first 6 bytes: "gz", "bz2", "xz", "zst", or "".

    Example:
      >>> kind_of(gzip.compress(b"x")), kind_of(b"image,caption")
      ('gz', '')
    """
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


@contextlib.contextmanager
def opened(path: files.Path) -> Iterator[Any]:
    """Opens a file for reading, decompressed where it is gzip, bzip2, xz or zstd.

    Reading raises one of `DAMAGED` where it is damaged or cut.

    Raises:
      FileNotFoundError: there is none.
      UserError: it is no plain file, or cannot be read.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(files.opened(path))
        kind = kind_of(file.read(6))
        file.seek(0)
        stream: Any = file
        if kind == "gz":
            stream = stack.enter_context(gzip.GzipFile(fileobj=file))
        elif kind == "bz2":
            stream = stack.enter_context(bz2.BZ2File(file))
        elif kind == "xz":
            stream = stack.enter_context(io.BufferedReader(_Xz(file), _BLOCK))
        elif kind == "zst":
            import pyarrow as pa

            stream = stack.enter_context(pa.CompressedInputStream(file, "zstd"))
        yield stream


class _Xz(io.RawIOBase):
    """The streams of an xz file; `lzma.open` bounds no memory."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._unpack: lzma.LZMADecompressor | None = None
        self._packed = b""

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        view = memoryview(into)
        while self._unpack is not None or self._begin():
            assert self._unpack is not None
            if self._unpack.needs_input and not self._packed:
                self._packed = self._file.read(_BLOCK)
                if not self._packed:
                    raise EOFError("the file ends before its end-of-stream mark")
            found = self._unpack.decompress(self._packed, len(view))
            self._packed = b""
            if self._unpack.eof:
                self._packed, self._unpack = self._unpack.unused_data, None
            if found:
                view[: len(found)] = found
                return len(found)
        return 0

    def _begin(self) -> bool:
        """Begins the next stream, in front of which there may be zeros; False at the end."""
        while not (packed := self._packed.lstrip(b"\0")):
            self._packed = self._file.read(_BLOCK)
            if not self._packed:
                return False
        self._packed = packed
        self._unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        return True
