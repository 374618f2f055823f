"""What a folder holds: a data set of its own kind, or files of pairs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence

from ape_jax.data.formats import registry
from ape_jax.errors import UserError
from ape_jax.images import walk
from ape_jax.images.formats import is_litter

_METADATA = re.compile(r"metadata\.(csv|jsonl|parquet)")
# Beside data sets of Hugging Face and img2dataset; they hold no pairs.
_ABOUT = re.compile(r"(dataset_infos?|state|sizes|.*_stats)\.json|nshards\.txt|README.*")
_SPLIT = re.compile(r"(train|training|validation|valid|val|dev|test|testing)(?![A-Za-z0-9])")
_LOOKS = 32  # Files that are opened to see what they are.
_DEEP = 2  # Folders in folders: data/train/*.parquet.


def files_in(folder: str, written: str, key: str, say: Callable[[str], None]) -> list[str]:
    """The files of pairs in a folder, or the folder itself where a format reads it as a whole.

    Files are in the folder or in those below it, all of one kind; `metadata.csv` of an image folder
    comes before others. Parts of a data set (train, test) are not mixed.

    Args:
      folder: its absolute path.
      written: as the user wrote it, for messages.
      key: the config key to name in messages.
      say: takes a line about what was chosen.

    Raises:
      UserError: nothing is found, several kinds, or several parts.
    """
    found = _look(folder, 0)
    if found is None:
        return [folder]
    kinds = _without_companions(found)
    if not kinds:
        raise UserError(
            f"{key}: the folder {written!r} holds no pairs that are recognised; name a file in it "
            f"({registry.supported()})"
        )
    if len(kinds) > 1:
        listed = ", ".join(_described(name, paths) for name, paths in sorted(kinds.items()))
        raise UserError(
            f"{key}: the folder {written!r} holds files of several kinds: {listed}; name those "
            f"that are meant, as in {_example(folder, kinds)!r}"
        )
    (paths,) = kinds.values()
    _check_parts(folder, paths, written, key)
    shown = os.path.relpath(paths[0], folder)
    others = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
    say(f"{key}: of the folder {folder}, {shown}{others} is read")
    return paths


def _look(folder: str, depth: int) -> dict[str, list[str]] | None:
    """Files of pairs by format; None where a format reads the folder as a whole."""
    here = next(walk.folders(folder), walk.Folder(folder))
    names = [name for name in here.files if not is_litter(name) and not name.startswith((".", "_"))]
    about = [name for name in names if _METADATA.fullmatch(name)]
    if about:
        return {"metadata": [os.path.join(folder, name) for name in about]}
    if depth == 0 and registry.looked_at(folder) is not None:
        return None
    kinds: dict[str, list[str]] = {}
    looks = 0
    for name in names:
        if _ABOUT.fullmatch(name):
            continue
        path = os.path.join(folder, name)
        known = registry.by_suffix(path)
        if known is None and looks < _LOOKS:
            looks += 1
            known = registry.looked_at(path)
        if known is not None:
            kinds.setdefault(known.name, []).append(path)
    if kinds or depth == _DEEP:
        return kinds
    for below in walk.below(folder):
        for kind, paths in (_look(os.path.join(folder, below), depth + 1) or {}).items():
            kinds.setdefault(kind, []).extend(paths)
    return kinds


def _without_companions(kinds: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Leaves out the tables that img2dataset writes beside its tars."""
    tars = {os.path.splitext(path)[0] for path in kinds.get("webdataset", ())}
    kept = {
        kind: [p for p in paths if kind != "parquet" or os.path.splitext(p)[0] not in tars]
        for kind, paths in kinds.items()
    }
    return {kind: paths for kind, paths in kept.items() if paths}


def _check_parts(folder: str, paths: Sequence[str], written: str, key: str) -> None:
    parts: dict[str, str] = {}
    for path in paths:
        at = folder
        for name in os.path.relpath(path, folder).split(os.sep):
            if match := _SPLIT.match(name):
                is_file = os.path.join(at, name) == path
                parts.setdefault(match[1], os.path.join(at, f"{match[1]}*" if is_file else name))
                break
            at = os.path.join(at, name)
    if len(parts) > 1:
        raise UserError(
            f"{key}: the folder {written!r} holds the parts {', '.join(parts)}; write one, as in "
            f"{next(iter(parts.values()))!r}"
        )


def _described(name: str, paths: Sequence[str]) -> str:
    return f"{len(paths)} of {name} ({os.path.basename(paths[0])})"


def _example(folder: str, kinds: Mapping[str, Sequence[str]]) -> str:
    paths = next(iter(kinds.values()))
    return (
        paths[0] if len(paths) == 1 else os.path.join(folder, f"*{os.path.splitext(paths[0])[1]}")
    )
