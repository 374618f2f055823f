"""Damaged files, drawn by kind of file and kind of damage; the same for the same seed.

A tower's directory is described by small files of JSON, of which anybody may have written any. Each
value of each such file is replaced by values of every other kind, and each file by what is no file.
"""

from __future__ import annotations

import copy
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Damage = Callable[[pathlib.Path], None]

# In the place of a value.
OTHERS: tuple[Any, ...] = (
    *(None, "x", "", -1, 1.5, True, [], [None], {}, {"a": 1}),
    *(float("nan"), float("-inf"), 10**30, -(10**30)),
)
# In the place of a file, or of its content.
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "NUL": b"\0" * 64,
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "half a character": b'{"a": "\\ud800"}',
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "a number": b"3",
    "null": b"null",
    "a text": b'"x"',
    "a list": b"[[]]",
    "a long number": b'{"a": ' + b"9" * 5000 + b"}",
    "words behind it": b"{} {}",
}


def values(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value below `content`, at most three of a list or of a long object."""
    if isinstance(content, dict):
        items = list(content.items())
        items = items[:3] if len(items) > 40 else items
    else:
        items = list(enumerate(content))[:3] if isinstance(content, list) else []
    for key, value in items:
        yield (*path, key)
        yield from values(value, (*path, key))


def replaced(content: Any, path: tuple, value: Any) -> Any:
    """`content` with another value at a path."""
    changed = copy.deepcopy(content)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


def _put(name: str, content: bytes) -> Damage:
    def change(root: pathlib.Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).write_bytes(content)

    return change


def _instead(name: str, make: Callable[[pathlib.Path], Any]) -> Damage:
    def change(root: pathlib.Path) -> None:
        (root / name).unlink(missing_ok=True)
        make(root / name)

    return change


def _sparse(path: pathlib.Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def no_file(name: str) -> Iterator[tuple[str, Damage]]:
    """What stands in the place of a file."""
    for kind, make in (
        ("a pipe", os.mkfifo),
        ("a folder", os.mkdir),
        ("a broken link", lambda path: path.symlink_to(path.with_name("nowhere"))),
        ("a terabyte", _sparse),
    ):
        yield kind, _instead(name, make)


def contents(root: pathlib.Path, name: str, seed: int, flips: int = 6) -> Iterator[tuple]:
    """Other content of a file: of no meaning, cut, with flipped bytes, with a key twice."""
    own = (root / name).read_bytes()
    for kind, content in CONTENTS.items():
        yield kind, _put(name, content)
    for part in (1, len(own) // 2, len(own) - 2):
        yield f"the first {part} bytes", _put(name, own[:part])
    rng = np.random.default_rng(seed)
    for number in range(flips):
        changed = bytearray(own)
        for place in rng.integers(0, len(own), 1 + number % 3):
            changed[place] ^= 1 << int(rng.integers(8))
        yield f"flip {number}", _put(name, bytes(changed))


def mutations(
    root: pathlib.Path, name: str, most: int | None = None
) -> Iterator[tuple[str, Any, Damage]]:
    """Every value of a JSON file replaced by each other: its key, the value, the damage.

    Args:
      root: the directory.
      name: of the file.
      most: of how many of them, drawn at random; None for all.
    """
    content = json.loads((root / name).read_text())
    pairs = [(path, value) for path in values(content) for value in OTHERS]
    if most is not None and most < len(pairs):
        chosen = np.random.default_rng(0).choice(len(pairs), most, replace=False)
        pairs = [pairs[i] for i in sorted(chosen)]
    for path, value in pairs:
        written = json.dumps(replaced(content, path, value)).encode()
        yield "/".join(map(str, path)), value, _put(name, written)


def copied(root: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
    """A copy of a directory; large files are linked."""
    shutil.rmtree(to, ignore_errors=True)

    def link(source: str, target: str) -> None:
        large = os.path.getsize(source) > 100_000
        (os.link if large else shutil.copyfile)(source, target)

    return pathlib.Path(shutil.copytree(root, to, copy_function=link))
