"""Patterns of file names: braces, and what a shell's `*` stands for."""

from __future__ import annotations

import glob
import itertools
import math
import os
import re
from collections.abc import Sequence

from ape_jax.errors import UserError

_MOST_FILES = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_GLOB = re.compile(r"[*?]|\[[^\]/]+\]")


def expand_braces(spec: str, key: str) -> list[str]:
    """Expands braces: `a-{00..02}.tar` becomes three paths; `{a,b}` and products work, too.

    Raises:
      UserError: braces that do not pair, an empty range, or too many files.
    """
    parts = _BRACES.split(spec)
    if any(c in part for part in parts[::2] for c in "{}"):
        raise UserError(f"{key}: {spec!r} has braces that do not pair; write a-{{000..003}}.tar")
    choices = [_choices(part, spec, key) for part in parts[1::2]]
    if math.prod(len(c) for c in choices) > _MOST_FILES:
        raise UserError(f"{key}: {spec!r} stands for more than {_MOST_FILES} files; write fewer")
    return [
        "".join(itertools.chain(*itertools.zip_longest(parts[::2], chosen, fillvalue="")))
        for chosen in itertools.product(*choices)
    ]


def is_glob(path: str) -> bool:
    """Tests whether a path holds `*`, `?` or `[...]`.

    >>> is_glob("a/*.tar"), is_glob("a-[01].tar"), is_glob("a.tar")
    (True, True, False)
    """
    return _GLOB.search(path) is not None


def matching(pattern: str, key: str) -> list[str]:
    """The files and folders that match a pattern, sorted by name.

    Raises:
      UserError: none does, or too many.
    """
    try:
        found = sorted(itertools.islice(glob.iglob(pattern, recursive=True), _MOST_FILES + 1))
    except (ValueError, RecursionError):  # A null byte; thousands of `**`.
        found = []
    if not found:
        raise UserError(f"{key}: no file matches {pattern!r}; correct the pattern")
    if len(found) > _MOST_FILES:
        raise UserError(f"{key}: more than {_MOST_FILES} files match {pattern!r}; write fewer")
    return [path for path in found if not os.path.basename(path).startswith("._")]


def _choices(inside: str, spec: str, key: str) -> Sequence[str]:
    match = _RANGE.fullmatch(inside)
    if match is None:
        if "," in inside:
            return inside.split(",")
        raise UserError(f"{key}: {spec!r}: braces hold a range or a list; write {{000..003}}")
    first, last = match.groups()
    if int(last) < int(first) or int(last) - int(first) >= _MOST_FILES:
        raise UserError(
            f"{key}: {spec!r}: the range {{{inside}}} is empty or above {_MOST_FILES} files; "
            "write {000..003}"
        )
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    return [str(i).zfill(width) for i in range(int(first), int(last) + 1)]
