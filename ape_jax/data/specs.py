"""Opens what a config names (`pairs.jsonl`, `a-{000..003}.tar`, `tfds:...`): pairs or rows."""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
from collections.abc import Callable, Sequence

import numpy as np

from ape_jax.data import split
from ape_jax.data.formats import registry
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.table import look, store
from ape_jax.data.table.problems import Problems
from ape_jax.errors import UserError

_MAX_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def open_pairs(
    spec: str | os.PathLike, *, key: str = "data.pairs", reading: Reading | None = None
) -> Pairs:
    """Opens pairs of any format and checks every row, before anything is decoded.

    The rows of one image are one pair with several captions (in order, exact duplicates dropped,
    surrounding white space removed). Images are the same where their path is, or where they are
    stored inside of files and their bytes are equal. The default id is the image's path as seen
    from the pairs file, or the shard and member, or the split's index.

    Example:
      pairs = open_pairs("pairs.jsonl")
      pairs[0].captions, pairs[0].image.name

    Args:
      spec: `*.jsonl`, `*.csv`, `*.tsv`, `*.parquet`, `*.tar`, a brace pattern of one of these,
        `tfds:NAME[/CONFIG]:SPLIT`, `demo:NAME[/LANGUAGE]:SPLIT`, `features:FILES`, `part:...`
        (`data.split`), or of a format that a plug-in has registered.
      key: the config key to name in messages.
      reading: which columns, and what happens to rows that cannot be used; None stops at them.

    Returns:
      The pairs; `VectorPairs` for `features:`.

    Raises:
      UserError: whatever a spec or a row can have wrong; names the file and line.
    """
    reading = reading or Reading()
    written = _checked(spec, key)
    if written.startswith(split.PREFIX):
        part = split.parse(written, key)
        return split.take(part, open_pairs(part.spec, key=key, reading=reading), key)
    found = registry.find(written, key=key)
    if found.open is not None:
        return found.open(written, key)
    table = store.make_or_find(source(written, key), written, key=key, columns=reading.columns)
    good, images = look.look(table, written) if reading.look else (None, ())
    rows = len(table) + sum(batch.num_rows for batch in table.problems)
    problems = Problems(batches=table.problems, files=table.files, images=images, rows=rows)
    problems.check(reading, key, written)
    kept = None if good is None or good.all() else np.flatnonzero(good)
    pairs = Pairs(table, written, kept, problems)
    if not len(pairs):
        raise UserError(f"{key}: {written!r} holds no pair that can be used: {problems}")
    return pairs


def _checked(spec: str | os.PathLike, key: str) -> str:
    if not isinstance(spec, str | os.PathLike) or not os.fspath(spec):
        raise UserError(f"{key}: found {spec!r}; write {registry.supported()}")
    return os.fspath(spec)


def source(spec: str, key: str) -> list[store.Part]:
    """The files of a spec, each with its format.

    Raises:
      UserError: an unknown form, or a file that is missing.
    """
    found = registry.find(spec, key=key)
    if found.prefix:
        reader = None if found.images is None else _Lazy(found.images, spec, key)
        read = functools.partial(found.read, spec)
        return [store.Part(file=spec, stamp=found.stamp(spec, key), read=read, reader=reader)]
    paths = expand_braces(spec, key)
    missing = [p for p in paths if not os.path.isfile(p)]
    if missing:
        others = f" ({len(missing)} of {len(paths)} files are missing)" if len(paths) > 1 else ""
        raise UserError(f"{key}: there is no file {missing[0]!r}{others}; correct the path")
    parts = []
    for path in map(os.path.abspath, paths):
        chosen = registry.find(path, key=key)
        stamp = store.stamp_of(path, chosen.name)
        read = functools.partial(chosen.read, path)
        parts.append(store.Part(file=path, stamp=stamp, read=read))
    return parts


class _Lazy:
    """Reads numbered images; their source is opened when the first is asked for."""

    def __init__(self, images: Callable, spec: str, key: str):
        self._open = functools.cache(functools.partial(images, spec, key))

    def __call__(self, number: int) -> bytes:
        return self._open()(number)


def expand_braces(spec: str, key: str) -> list[str]:
    """Expands braces: `a-{00..02}.tar` becomes three paths; `{a,b}` and products work, too."""
    parts = _BRACES.split(spec)
    if any(c in part for part in parts[::2] for c in "{}"):
        raise UserError(f"{key}: {spec!r} has braces that do not pair; write a-{{000..003}}.tar")
    choices = [_choices(part, spec, key) for part in parts[1::2]]
    if math.prod(len(c) for c in choices) > _MAX_SHARDS:
        raise UserError(f"{key}: {spec!r} stands for more than {_MAX_SHARDS} files; write fewer")
    return [
        "".join(itertools.chain(*itertools.zip_longest(parts[::2], chosen, fillvalue="")))
        for chosen in itertools.product(*choices)
    ]


def _choices(inside: str, spec: str, key: str) -> Sequence[str]:
    match = _RANGE.fullmatch(inside)
    if match is None:
        if "," in inside:
            return inside.split(",")
        raise UserError(f"{key}: {spec!r}: braces hold a range or a list; write {{000..003}}")
    first, last = match.groups()
    if int(last) < int(first) or int(last) - int(first) >= _MAX_SHARDS:
        raise UserError(
            f"{key}: {spec!r}: the range {{{inside}}} is empty or above {_MAX_SHARDS} files; "
            "write {000..003}"
        )
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    return [str(i).zfill(width) for i in range(int(first), int(last) + 1)]
