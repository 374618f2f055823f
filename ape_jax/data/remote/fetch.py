"""Files and images at urls, kept in the cache folder.

`http(s)://` is read with httpx, and everything else (`gs://`, `s3://`, `hf://`, `memory://` and
whatever is registered) with fsspec. A pairs file is asked for its version each time that it is
opened; an image is fetched once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import posixpath
import re
import shutil
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ape_jax.data.remote import transports
from ape_jax.data.remote.transports import Gone, Unreachable
from ape_jax.errors import UserError
from ape_jax.images.decode import MAX_BYTES, ImageError
from ape_jax.storage import atomic, disk, files, lock
from ape_jax.terminal.progress import Progress

T = TypeVar("T")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_TRIES = 4
_FIRST_PAUSE = 0.5  # Seconds; doubles.
_KEPT_FREE = 2**30
_REMEDY = "set APE_JAX_CACHE to another folder"
_writing = threading.Lock()


def is_url(text: str) -> bool:
    """Tests whether a text is the url of something that is not a local file.

    >>> is_url("s3://bucket/a.tar"), is_url("file:///a.tar"), is_url("C://a.tar"), is_url("a.tar")
    (True, False, False, False)
    """
    match = _URL.match(text)
    return match is not None and match[1].lower() != "file"


def parent(url: str) -> str:
    """The folder of a url, without a query.

    >>> parent("https://host/data/pairs.jsonl?download=true")
    'https://host/data'
    """
    return _without_query(url).rpartition("/")[0]


def listed(pattern: str, key: str) -> list[str]:
    """The urls that match a pattern with `*`, sorted.

    Raises:
      UserError: the place cannot be listed, as `http://` never can.
    """
    try:
        return transports.matching(pattern)
    except (Gone, Unreachable) as e:
        raise UserError(f"{key}: {pattern} cannot be listed ({e})") from e


def local_copy(url: str, key: str, say: Callable[[str], None]) -> str:
    """The path of a copy of a file in the cache folder, fetched unless this version is there.

    Args:
      url: of the file.
      key: the config key to name in messages.
      say: takes lines about what is fetched, and about a copy that could not be compared.

    Raises:
      UserError: there is no such file, the place cannot be reached, a package is missing, or the
        disk is full.
    """
    folder = disk.cache_dir() / "remote" / _digest(url)
    name = _file_name(url)
    try:
        version, size = _tried(lambda: transports.version(url))
    except Gone as e:
        raise UserError(f"{key}: {url} is not there ({e}); correct the url") from e
    except Unreachable as e:
        if kept := _newest(folder, name):
            say(f"{key}: {url} cannot be reached ({e}); the copy in {kept.parent} is read")
            return str(kept)
        remedy = "" if e.final else "; correct the url, or see to the network"
        raise UserError(f"{key}: {url} cannot be fetched ({e}){remedy}") from e
    copy = folder / _digest(version) / name
    if copy.exists():
        return str(copy)
    with disk.write_errors(f"The cache {folder}", _REMEDY):
        copy.parent.mkdir(parents=True, exist_ok=True)
        disk.require_space(copy.parent, (size or 0) + _KEPT_FREE, f"{url} needs", _REMEDY)
        busy = f"another process is fetching {url}; waiting for it"
        with lock.exclusive(folder / "lock", busy, say):
            if not copy.exists():
                say(f"{key}: {url} is copied to {copy.parent}")
                atomic.write(copy, lambda to: _download(url, to, size, key))
    return str(copy)


def image(url: str, name: str) -> bytes:
    """The bytes of an image at a url, kept in the cache folder; any thread may call it.

    Args:
      url: of the image.
      name: of the image in messages.

    Raises:
      ImageError: it cannot be fetched, or is larger than an image may be.
    """
    digest = _digest(url)
    copy = images_dir() / digest[:2] / digest
    try:
        return files.read_bytes(copy, most=MAX_BYTES)
    except (OSError, UserError):
        pass
    try:
        content = _tried(lambda: _read(url))
    except (Gone, Unreachable) as e:
        raise ImageError(f"{name}: the image cannot be fetched ({e}); remove the row") from e
    if len(content) > MAX_BYTES:
        raise ImageError(f"{name}: the image has more than {MAX_BYTES} bytes; remove the row")
    _keep(copy, content)
    return content


@dataclasses.dataclass(frozen=True, slots=True)
class Remote:
    """Reads an image at a url: the source of an `ImageRef`.

    Attributes:
      url: of the image.
      name: of the image in messages.
    """

    url: str
    name: str

    def __call__(self) -> bytes:
        """Fetches it, or reads the copy in the cache folder."""
        return image(self.url, self.name)


def images_dir() -> Path:
    """The folder of images that were fetched."""
    return disk.cache_dir() / "remote" / "images"


def _keep(copy: Path, content: bytes) -> None:
    """Stores an image while there is room; without, it is fetched again the next time."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(copy.parent).free > _KEPT_FREE + len(content):
            with _writing:  # A target is written by one thread at a time.
                partial = copy.with_name(f".{copy.name}.{os.getpid()}.partial")
                partial.write_bytes(content)
                partial.replace(copy)
    except OSError:
        return


def _read(url: str) -> bytes:
    parts, total = [], 0
    for block in transports.blocks(url):
        parts.append(block)
        total += len(block)
        if total > MAX_BYTES:
            break
    return b"".join(parts)


def _download(url: str, to: Path, size: int | None, key: str) -> None:
    """Writes a file, of the size that was announced."""
    total = size >> 20 if size and size >> 20 else None

    def attempt() -> None:
        progress, done = Progress(f"fetching {url}", total, "MB"), 0
        with to.open("wb") as out:
            for block in transports.blocks(url):
                out.write(block)
                done += len(block)
                progress.update(done >> 20)
        if size is not None and done != size:
            raise Unreachable(f"{done} of {size} bytes came")

    try:
        _tried(attempt)
    except (Gone, Unreachable) as e:
        raise UserError(f"{key}: {url} cannot be fetched ({e}); try again") from e


def _tried(attempt: Callable[[], T]) -> T:
    """What an attempt returns; a place that does not answer is tried again after a pause."""
    for pause in range(_TRIES):
        try:
            return attempt()
        except Unreachable as e:
            if pause == _TRIES - 1 or e.final:
                raise
            time.sleep(_FIRST_PAUSE * 2**pause)
    raise AssertionError("unreachable")


def _newest(folder: Path, name: str) -> Path | None:
    copies = [path for path in folder.glob(f"*/{_literal(name)}") if path.is_file()]
    return max(copies, key=lambda path: path.stat().st_mtime, default=None)


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _file_name(url: str) -> str:
    name = urllib.parse.unquote(posixpath.basename(_without_query(url)))
    return re.sub(r"[/\0]", "_", name)[-128:] or "file"


def _without_query(url: str) -> str:
    return re.split(r"[?#]", url, maxsplit=1)[0] if url.lower().startswith("http") else url


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
