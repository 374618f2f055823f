"""A folder of shards: `image-*.npy`, `text-*.npy` and, if wanted, `text_offsets-*`, `owner-*`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import numpy as np

from ape_jax.data.precomputed.arrays import Arrays, check_image, offsets_of, owner_of
from ape_jax.data.precomputed.file_array import joined
from ape_jax.data.precomputed.npy import read_npy
from ape_jax.errors import UserError
from ape_jax.parallel import hosts

_NAME = re.compile(r"(image|text|text_offsets|owner)(?:-(.+))?\.npy")
_NUMBER = re.compile(r"(\d+)(?:-of-(\d+))?")
_FORM = "image-00000.npy, text-00000.npy and so on"


def read_shards(folder: str, key: str) -> Arrays:
    """The arrays of a folder, shard after shard in the order of their names.

    Offsets and images of a shard are counted from its first, or `owner` from the first of all.

    Args:
      folder: the folder.
      key: the config key to name in messages.

    Raises:
      UserError: no such files, a number that is missing or there twice, shards that do not fit.
    """
    found = _names(folder, key)
    for name in ("text", "text_offsets", "owner"):
        _check_alike(found, name, folder, key)
    arrays = {
        name: [read_npy(os.path.join(folder, file), key) for file in files.values()]
        for name, files in found.items()
    }
    shards, first_text, first_image = list(found["image"].values()), 0, 0
    offsets, owners = [np.zeros(1, np.int64)], []
    for k, file in enumerate(shards):
        where = f"{key}: {os.path.join(folder, file)!r} and its text"
        parts = {name: files[k] for name, files in arrays.items()}
        check_image(parts["image"], where)
        bounds = offsets_of(parts, where)
        owners.append(owner_of(parts, bounds, where, base=first_image) + first_image)
        offsets.append(bounds[1:] + first_text)
        first_text += int(bounds[-1])
        first_image += parts["image"].shape[0]
    return Arrays(
        image=joined(arrays["image"], f"{key}: {folder!r}: 'image'"),
        text=joined(arrays["text"], f"{key}: {folder!r}: 'text'"),
        offsets=np.concatenate(offsets),
        owner=np.concatenate(owners),
    )


def _names(folder: str, key: str) -> dict[str, dict[str, str]]:
    """Files by kind and by what tells shards apart, in order."""
    found: dict[str, dict[str, str]] = {}
    left = []
    for file in sorted(os.listdir(folder)):
        match = _NAME.fullmatch(file)
        if match is None:
            left.append(file)
        else:
            found.setdefault(match[1], {})[match[2] or ""] = file
    if not {"image", "text"} <= set(found):
        raise UserError(
            f"{key}: the folder {folder!r} holds {', '.join(map(repr, found)) or 'none'} of the "
            f"arrays 'image' and 'text'; name its files {_FORM}"
        )
    if left:
        shown = ", ".join(left[:3]) + ("" if len(left) <= 3 else f" and {len(left) - 3} more")
        hosts.say(f"{folder}: {shown} left out, they are no arrays of features")
    return {name: _in_order(files, folder, key) for name, files in found.items()}


def _in_order(files: Mapping[str, str], folder: str, key: str) -> dict[str, str]:
    """By number where all have one, which must follow each other; else by name."""
    numbers = [_NUMBER.fullmatch(suffix) for suffix in files]
    if not all(numbers):
        return dict(files)
    by_number: dict[int, tuple[str, str]] = {}
    for match, (suffix, file) in zip(numbers, files.items(), strict=True):
        assert match is not None
        other = by_number.setdefault(int(match[1]), (suffix, file))
        if other[1] != file:
            raise UserError(
                f"{key}: {folder!r} holds {other[1]!r} and {file!r}, the same number twice; "
                "remove one of them"
            )
    first, last = min(by_number), max(by_number)
    expected = {int(match[2]) for match in numbers if match and match[2]}
    stop = max(first + max(expected), last + 1) if expected else last + 1
    missing = next((n for n in range(first, stop) if n not in by_number), None)
    if first > 1 or missing is not None:
        lost = missing if missing is not None else 0
        raise UserError(
            f"{key}: {folder!r} holds {len(files)} files such as {by_number[first][1]!r}, but none "
            f"with the number {lost}; add it, or number the files without a gap"
        )
    return dict(by_number[n] for n in sorted(by_number))


def _check_alike(found: Mapping[str, Mapping[str, str]], name: str, folder: str, key: str) -> None:
    """Every array has the same shards."""
    if name not in found or list(found[name]) == list(found["image"]):
        return
    ours, theirs = set(found[name]), set(found["image"])
    odd = sorted(ours ^ theirs)[0]
    there, lacking = (name, "image") if odd in ours else ("image", name)
    raise UserError(
        f"{key}: {folder!r} holds {found[there][odd]!r} but no {lacking!r} of that number; each "
        "shard needs both"
    )
