"""The folder of what visitors send and are shown: bounded, and gone with the page."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pathlib
import threading
import time
from collections.abc import Iterator

from PIL import Image

from ape_jax.errors import UserError

MOST_BYTES = 500 * 10**6
_YOUNG = 60.0  # Seconds in which a folder may be empty because its file is about to come.


class Kept:
    """A folder that holds so many bytes; the oldest files make room for new ones.

    Args:
      folder: there, and nobody else's.
      most: bytes of all files.
    """

    def __init__(self, folder: str | os.PathLike[str], most: int = MOST_BYTES):
        self.folder = pathlib.Path(folder).resolve()
        self._most = most
        self._coming = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def room_for(self, nbytes: int) -> Iterator[None]:
        """Makes room for a file and keeps it until the file is there.

        Raises:
          UserError: files that are coming in take all room.
        """
        with self._lock:
            if self._coming + nbytes > self._most:
                raise UserError("too many files are sent at once; send this one again later")
            self._coming += nbytes
            self._trim(self._most - self._coming)
        try:
            yield
        finally:
            with self._lock:
                self._coming -= nbytes

    def file(self, path: str) -> pathlib.Path | None:
        """A file in the folder by its absolute path; None where it is not there, or elsewhere."""
        try:
            found = pathlib.Path(path).resolve()
            inside = found.is_relative_to(self.folder) and found.is_file()
        except (OSError, ValueError):  # A name that no file can have.
            return None
        return found if inside else None

    def save(self, picture: Image.Image) -> str:
        """Keeps a picture as JPEG and gives its path.

        Raises:
          UserError: it cannot be written.
        """
        written = io.BytesIO()
        picture.convert("RGB").save(written, "JPEG", quality=90)
        content = written.getvalue()
        path = self.folder / f"{hashlib.sha256(content).hexdigest()[:32]}.jpg"
        with self.room_for(len(content)):
            try:
                if path.exists():
                    path.touch()  # It is among the newest again.
                else:
                    partial = path.with_suffix(f".{threading.get_ident()}")
                    partial.write_bytes(content)
                    partial.replace(path)
            except OSError as error:
                raise UserError(f"a picture cannot be kept ({error.strerror})") from None
        return str(path)

    def _trim(self, most: int) -> None:
        files, folders = [], []
        for place, _, names in os.walk(self.folder):
            folders.append(place)
            for name in names:
                with contextlib.suppress(OSError):
                    path = os.path.join(place, name)
                    status = os.stat(path)
                    files.append((status.st_mtime, status.st_size, path))
        held = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if held <= most:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            held -= size
        now = time.time()
        for place in reversed(folders[1:]):
            with contextlib.suppress(OSError):  # It holds files.
                if now - os.stat(place).st_mtime > _YOUNG:
                    os.rmdir(place)
