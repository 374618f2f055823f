"""Folders in which each image has a text of the same name beside it: `cat.jpg`, `cat.txt`."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from ape_jax.data.cells import printable
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.sidecars import TEXTS, Sidecars, Unreadable
from ape_jax.data.rows import MAX_RECORD_BYTES, Ask, Broken, FileRows, Row
from ape_jax.errors import UserError
from ape_jax.images.formats import is_image_name, is_litter
from ape_jax.images.walk import Folder, folders
from ape_jax.storage import files

_BESIDE = (*TEXTS, "json", "cls")
# Between an image's stem and a text's last ending: a.0.txt, a.caption.txt.
_INNER = re.compile(r"\.(\d{1,9}|\w*caption\w*|text|title)$", re.IGNORECASE)
_PROBLEMS = {
    "cannot be opened": "folders that cannot be opened",
    "is read already": "links to folders that are read already",
}
# What img2dataset writes beside its folders.
_OWN = re.compile(r"(\d+\.parquet|\d+_stats\.json)$")


def holds_images_and_texts(path: str) -> bool:
    """Tests whether an image with a text of its name is among the first files of a folder."""
    return any(
        beside and any(name.rpartition(".")[2].lower() in (*TEXTS, "json") for name in beside)
        for group in _first(path)
        for beside in _Names(group.files).beside.values()
    )


def read_folder(path: str, ask: Ask) -> FileRows:
    """Reads the images below a folder, with the texts and JSON beside each (`sidecars`).

    Args:
      path: the folder; folders below it are read too, in order of their names.
      ask: what is asked; its columns are names of endings (`caption.txt`) and of fields of `.json`.
    """
    sidecars = Sidecars(ask, "folders of images")
    return FileRows(rows=_rows(path, ask, sidecars), base=(path,), named=sidecars.named)


def _rows(path: str, ask: Ask, sidecars: Sidecars) -> Iterator[Row | Broken]:
    left: Counter[str] = Counter()
    for group in _visible(path):
        if group.problem:
            left[_PROBLEMS[group.problem]] += 1
            continue
        names = _Names(group.files)
        left.update(names.left)
        if group.others:
            left["links to nothing or no plain files"] += group.others
        for image, beside in names.beside.items():
            yield _row(path, os.path.join(group.path, image), beside, sidecars)
    if left:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(left.items()))
        ask.say(f"{printable(path)}: not read: {listed}")


def _row(root: str, image: str, beside: dict[str, str], sidecars: Sidecars) -> Row | Broken:
    at = printable(os.path.relpath(image, root))
    if not beside:
        stem = os.path.splitext(os.path.basename(at))[0]
        return Broken(at, "no caption", f"there is no text beside it; write {stem}.txt")
    folder = os.path.dirname(image)
    texts = [
        (ending, functools.partial(_read_text, os.path.join(folder, name)))
        for name, ending in beside.items()
    ]
    try:
        return Row(at, sidecars.fields(texts, {"image": image}))
    except Unreadable as e:
        return Broken(f"{os.path.splitext(at)[0]}.{e.ending}", "damaged row", e.reason)


class _Names:
    """Names of the files of one folder, by the images that they belong to.

    Attributes:
      beside: image -> names of its texts -> their endings behind the image's stem.
      left: number of files that belong to none, by kind.
    """

    def __init__(self, files: Sequence[str]):
        images = [name for name in files if is_image_name(name) and not is_litter(name)]
        self.beside: dict[str, dict[str, str]] = {image: {} for image in images}
        self.left: Counter[str] = Counter()
        by_stem: dict[str, list[str]] = {}
        for image in images:
            by_stem.setdefault(os.path.splitext(image)[0], []).append(image)
        known = set(images)
        for name in files:
            if name not in known:
                self._place(name, known, by_stem)

    def _place(self, name: str, known: set[str], by_stem: dict[str, list[str]]) -> None:
        stem, _, last = name.rpartition(".")
        if last.lower() in _BESIDE and not is_litter(name):
            if stem in known:  # cat.jpg.txt
                self.beside[stem][name] = last.lower()
                return
            inner = _INNER.sub("", stem)
            for own in dict.fromkeys((stem, inner)):
                for image in by_stem.get(own, ()):
                    self.beside[image][name] = name[len(own) + 1 :].lower()
                if own in by_stem:
                    return
        self._leave(name, last if stem else "")

    def _leave(self, name: str, last: str) -> None:
        if is_litter(name):
            self.left["files of macOS"] += 1
        elif not _OWN.match(name) and not name.startswith("."):
            self.left[f".{last} files" if last.isalnum() else "other files"] += 1


def _read_text(path: str) -> str:
    try:
        content = files.read_bytes(path, "it", MAX_RECORD_BYTES)
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"it is not UTF-8 text (byte {e.start}); save it as UTF-8") from e
    except UserError as e:
        raise ValueError(str(e)) from e
    except OSError as e:
        raise ValueError(f"it cannot be read ({e.strerror})") from e


def _first(path: str) -> Iterator[Folder]:
    seen = 0
    for group in _visible(path):
        yield group
        seen += 1 + len(group.files)
        if seen > 10_000:
            return


def _visible(path: str) -> Iterator[Folder]:
    """Folders whose names do not begin with a dot."""
    for group in folders(path):
        inside = group.path[len(path) :].split("/")
        if not any(name.startswith(".") for name in inside):
            yield group


def stamp_folder(path: str, key: str) -> str:
    """A digest of names, sizes and times of the texts below a folder, and of the images' names."""
    total = hashlib.blake2b(digest_size=16)
    for group in _visible(path):
        total.update(f"{group.path}\0{group.problem}\n".encode("utf-8", "surrogatepass"))
        for name in group.files:
            known = name
            if not is_image_name(name):
                status = os.stat(os.path.join(group.path, name))
                known = f"{name}\0{status.st_size} {status.st_mtime_ns}"
            total.update(f"{known}\n".encode("utf-8", "surrogatepass"))
    return total.hexdigest()


FOLDER = PairsFormat(
    name="folder",
    spec="a folder of images with texts",
    suffixes=("/",),
    matches=holds_images_and_texts,
    read=read_folder,
    stamp=stamp_folder,
)
