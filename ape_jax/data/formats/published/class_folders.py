"""Folders of classes, as torchvision's `ImageFolder` and ImageNet: `DIR/tabby cat/1.jpg`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.published.places import listed, only_whole
from ape_jax.data.rows import Ask, FileRows, Row
from ape_jax.errors import UserError
from ape_jax.images.formats import is_image_name

_TABLES = (".csv", ".jsonl", ".parquet", ".tsv", ".arrow", ".tar")
_PARTS = frozenset(
    {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "images"}
)
_LOOK = 64  # Entries of a folder that a look reads.


def read_class_folders(path: str, ask: Ask) -> FileRows:
    """Reads the images of all folders; the name of a folder is the class of what lies in it.

    Args:
      path: the folder of folders.
      ask: what is asked.

    Raises:
      UserError: captions or a split are wanted.
    """
    only_whole(ask, path)
    if ask.wanted != "label":
        raise UserError(
            f"{ask.key}: {path!r} holds folders of classes and no captions; it is for zero-shot "
            "evaluation, and captions stand in a .txt beside each image or in metadata.csv"
        )
    return FileRows(rows=_rows(path, ask), base=(path,), named=True)


def is_class_folders(path: str) -> bool:
    """Tests for a folder of folders with images that have no captions beside them.

    Folders that are called train, val and the like are parts of a data set and no classes.
    """
    folders, files = _entries(path)
    if any(is_image_name(name) or name.lower().endswith(_TABLES) for name in files):
        return False
    if not folders or {name.lower() for name in folders} <= _PARTS:
        return False
    some = [os.path.join(path, name) for name in folders[:_LOOK]]
    return any(map(_has_images, some)) and not any(map(_has_captions, some))


def _has_images(folder: str, look: int | None = _LOOK) -> bool:
    return any(is_image_name(name) for name in _first_files(folder, look))


def _has_captions(folder: str) -> bool:
    files = list(_first_files(folder, _LOOK))
    texts = {os.path.splitext(name)[0] for name in files if name.lower().endswith(".txt")}
    return any(is_image_name(name) and os.path.splitext(name)[0] in texts for name in files)


def _first_files(folder: str, look: int | None) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in itertools.islice(entries, look))


def _rows(path: str, ask: Ask) -> Iterator[Row]:
    folders, files = _entries(path)
    classes = [name for name in folders if _has_images(os.path.join(path, name), None)]
    # Folders called by numbers are in the order of these, and not of their names as text.
    numbered = all(name.isdecimal() for name in classes)
    left = len(files)
    for number, name in enumerate(classes):
        inside, others = _entries(os.path.join(path, name))
        images = [other for other in others if is_image_name(other)]
        left += len(others) - len(images) + len(inside)
        for image in images:
            fields = {"image": os.path.join(name, image), "label": name if numbered else number}
            if not numbered:
                fields["label_names"] = classes
            yield Row(f"{name}/{image}", fields)
    if empty := [name for name in folders if name not in set(classes)]:
        ask.say(f"{path}: no images in the folders {listed(empty)}, which are no classes here")
    if left:
        noun = "entry" if left == 1 else "entries"
        ask.say(f"{path}: {left} {noun} that are no images of a class not read")


def _entries(path: str) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted; hidden ones are left out."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if _is_folder(entry) else files).append(entry.name)
    return sorted(folders), sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


CLASS_FOLDERS = PairsFormat(
    name="class_folders",
    spec="a folder of a folder a class",
    suffixes=("/",),
    matches=is_class_folders,
    read=read_class_folders,
)
