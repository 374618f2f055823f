"""The chosen pairs as a file that every command reads."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from ape_jax.data.pairs import Pairs
from ape_jax.errors import UserError
from ape_jax.images.encode import stored
from ape_jax.storage import atomic, disk

_ENDING = ".jsonl"
_IMAGES = "_images"
_ENDINGS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


def check_out(out: str) -> Path:
    """The absolute path of a pairs file that is to be made.

    Raises:
      UserError: for one that exists, is no `.jsonl`, or lies where nothing can be written.
    """
    path = atomic.check_new(out, "--out", "file")
    if path.suffix.lower() != _ENDING:
        raise UserError(f"--out: pairs are written as JSON lines; name a .jsonl, found {out!r}")
    atomic.check_new(str(_folder(path)), "--out", "directory")
    return path


def write(path: Path, chosen: Pairs) -> int:
    """Writes pairs, a line each, in their order.

    An image that is a file of its own is named by its absolute path. One that lies inside another
    file, such as a tar member, is written as a file into a folder beside `path`, byte for byte.

    Args:
      path: from `check_out`.
      chosen: the pairs.

    Returns:
      Number of images that were written.

    Raises:
      UserError: for an image that cannot be read, or a disk that is full.
    """
    with disk.write_errors(f"--out: {path}", "name another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            lines = list(_lines(chosen, _Folder(_folder(path), stack)))
            written = sum(inside for _, inside in lines)
        atomic.write_text(path, "".join(line for line, _ in lines))
    return written


class _Folder:
    """A folder that is made when the first image is put into it."""

    def __init__(self, path: Path, stack: contextlib.ExitStack):
        self._path, self._stack, self._partial = path, stack, None

    def put(self, content: bytes, number: int) -> str:
        """Writes an image; its path as seen from the pairs file."""
        if self._partial is None:
            self._partial = self._stack.enter_context(atomic.directory(self._path))
        ending = next((e for head, e in _ENDINGS.items() if content.startswith(head)), ".img")
        name = f"{number:06}{ending}"
        (self._partial / name).write_bytes(content)
        return f"{self._path.name}/{name}"


def _lines(chosen: Pairs, folder: _Folder) -> Iterator[tuple[str, bool]]:
    """Each line, and whether its image was written."""
    for number, pair in enumerate(chosen):
        image = stored(pair.image.content, pair.image.name)
        inside = image["bytes"] is not None
        place = folder.put(image["bytes"], number) if inside else image["path"]
        row = {"image": place, "captions": list(pair.captions), "id": pair.id}
        yield json.dumps(row) + "\n", inside


def _folder(path: Path) -> Path:
    return path.with_name(path.stem + _IMAGES)
