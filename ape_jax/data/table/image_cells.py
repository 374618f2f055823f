"""Images out of the cells of a row: where each is, what makes it the same image, its default id."""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import os
import posixpath
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ape_jax.data import cells
from ape_jax.data.cells import Unusable
from ape_jax.data.rows import Embedded, Numbered

_LOOKED_AT = 32  # Images of a file, by which the folder of relative paths is found.
_FOLDERS = 100_000  # Folders remembered at a time.
_ODD = cells.NULLS | {"", ".", ".."}  # Ends of a path that are no name of a file.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class Image(NamedTuple):
    """One image as the table stores it; see `schema.rows`.

    `name` is None where the path, as seen from the root, is the default id.
    """

    path: bytes | None
    offset: int
    size: int
    content: bytes | None
    number: int
    key: bytes
    name: bytes | None


class ImageCells:
    """Reads the image cells of one file.

    Args:
      file: path of the file, or the spec of a format with a prefix.
      root: folder that default ids are relative to.
      bases: folders that relative paths may be relative to, the likeliest first.
      say: takes one line for the user.
    """

    def __init__(self, file: str, root: str, bases: Sequence[str], say: Callable[[str], None]):
        self._file, self._root, self._bases, self._say = file, root, bases, say
        self._base = bases[0] if bases else root
        self._label = os.path.relpath(file, root) if os.path.isabs(file) else file
        self._settled = False
        self._folders: dict[str, bytes] = {}

    def settle(self, values: Iterable[Any]) -> None:
        """Finds the folder that relative paths are relative to, by the first images."""
        if self._settled:
            return
        relative = (v for v in values if isinstance(v, str) and v and not _is_absolute(v))
        some = [_posix(v) for v in itertools.islice(relative, _LOOKED_AT)]
        self._settled = bool(some)
        for base in self._bases:
            if any(os.path.exists(os.path.join(base, v)) for v in some if "\0" not in v):
                if base != self._bases[0]:
                    self._say(
                        f"{self._file}: images are not in {self._bases[0]}; taken from {base}"
                    )
                self._base = base
                return

    def __call__(self, value: Any, suffix: str) -> Image:
        """Reads one cell.

        Args:
          value: see `rows.Row`.
          suffix: makes the default id of an image that has no path.

        Raises:
          Unusable: it holds no image.
        """
        if type(value) is str:
            return self._of_path(value)
        if isinstance(value, Embedded):
            where = value.path.encode("utf-8", "surrogatepass")
            key = _hash(b"%s\0%d" % (where, value.offset))
            return Image(where, value.offset, value.size, None, -1, key, self._name(suffix))
        if isinstance(value, Numbered):
            key = _hash(f"{self._file}\0{value.number}".encode("utf-8", "surrogatepass"))
            return Image(None, -1, value.size, None, value.number, key, self._name(suffix))
        if isinstance(
            value, Mapping
        ):  # datasets keeps bytes None and a path in files not embedded.
            inner = value.get("bytes")
            return self(value.get("path") if inner is None else inner, suffix)
        if isinstance(value, bytes | bytearray | memoryview):
            content = bytes(value)
            return Image(None, -1, len(content), content, -1, _hash(content), self._name(suffix))
        if isinstance(value, Sequence) and len(value) == 1 and not isinstance(value, str):
            return self(value[0], suffix)
        if isinstance(value, os.PathLike):
            return self._of_path(os.fspath(value))
        raise _no_image(value)

    def plain(self, value: str) -> bytes | None:
        """The absolute path of an image in a folder that is known; None for anything else."""
        cut = value.rfind("/") + 1
        known = self._folders.get(value[:cut])
        if known is None or value[cut:] in _ODD or "\\" in value:
            return None
        return known + value[cut:].encode("utf-8", "surrogatepass")

    def _of_path(self, value: str) -> Image:
        if not value.strip() or value in cells.NULLS:
            raise _no_image(value)
        if value.startswith("data:"):
            return self._of_data(value)
        if _URL.match(value) and not value.startswith("file://"):
            url = value.encode("utf-8", "surrogatepass")
            return Image(url, -1, -1, None, -1, _hash(url), url)
        written = self._posix(value)
        if _URL.match(self._base):
            absolute = posixpath.join(self._base, written)
        else:
            absolute = os.path.normpath(os.path.join(self._base, os.path.expanduser(written)))
        path = absolute.encode("utf-8", "surrogatepass")
        cut = written.rfind("/") + 1
        if written == value and value[cut:] not in _ODD and len(self._folders) < _FOLDERS:
            self._folders[value[:cut]] = path[: path.rfind(b"/") + 1]
        return Image(path, -1, -1, None, -1, _hash(path), None)

    def _posix(self, value: str) -> str:
        written = _posix(value)
        if "\\" in value and written != value:
            self._say(f"{self._file}: paths of images have Windows separators; read as '/'")
        return written

    def _of_data(self, value: str) -> Image:
        head, _, data = value.partition(",")
        try:
            content = base64.b64decode(data, validate=True) if head.endswith(";base64") else b""
        except (binascii.Error, ValueError):
            content = b""
        if not content:
            raise _no_image(value)
        return Image(
            None, -1, len(content), content, -1, _hash(content), _hash(content).hex().encode()
        )

    def _name(self, suffix: str) -> bytes:
        return f"{self._label}{suffix}".encode("utf-8", "surrogatepass")


def _posix(value: str) -> str:
    """A path as this system writes it: without `file://`, and with slashes."""
    if value.startswith("file://"):
        return urllib.parse.unquote(value[len("file://") :].removeprefix("localhost"))
    if "\\" in value and os.sep == "/" and not os.path.exists(value):
        return value if _DRIVE.match(value) else value.replace("\\", "/")
    return value


def _is_absolute(value: str) -> bool:
    return value.startswith(("/", "~")) or bool(_URL.match(value)) or value.startswith("data:")


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _no_image(value: Any) -> Unusable:
    return Unusable(
        "no image", f"'image' is {cells.shorten(value)}; write the path of an image file"
    )
