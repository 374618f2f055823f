"""Which files a spec of own features names, and the arrays in them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ape_jax.config.outside import PREFIX
from ape_jax.data.precomputed import npz, parquet
from ape_jax.data.precomputed.arrays import Arrays, of_parts
from ape_jax.data.precomputed.npy import read_npy
from ape_jax.data.precomputed.shards import read_shards
from ape_jax.errors import UserError
from ape_jax.storage import memory

_FORMS = "features:IMAGE.npy,TEXT.npy, features:FOLDER, features:FILE.npz or features:FILE.parquet"
_MOST_UNPACKED = 2**31  # Bytes of compressed arrays in memory.


def read_features(spec: str, key: str) -> tuple[parquet.Table, Sequence[str]]:
    """The arrays that a spec names, and the files that they were read from.

    Args:
      spec: as `formats.features` describes it.
      key: the config key to name in messages.

    Raises:
      UserError: for a spec of another form, and whatever files and arrays can have wrong.
    """
    path = os.path.expanduser(spec.removeprefix(PREFIX))
    if path.endswith(".parquet"):
        return parquet.read_parquet(path, key), [path]
    if path.endswith(".npz"):
        most = min(_MOST_UNPACKED, (memory.free_bytes() or _MOST_UNPACKED) // 2)
        arrays = of_parts(npz.read_npz(path, key, most), f"{key}: {spec!r}")
        return _table(arrays), [path]
    if os.path.isdir(path):
        arrays = read_shards(path, key)
        return _table(arrays), [part.path for part in sorted(os.scandir(path), key=_name)]
    files = two_files(path)
    if files is None:
        raise UserError(f"{key}: {spec!r} is of no known form; write {_FORMS}")
    parts = {name: read_npy(file, key) for name, file in zip(("image", "text"), files, strict=True)}
    return _table(of_parts(parts, f"{key}: {spec!r}")), files


def two_files(path: str) -> tuple[str, str] | None:
    """The two .npy files that a path names, parted by a comma; paths may hold commas themselves.

    Example:
      >>> two_files("runs,old/a.npy,b.npy"), two_files("a.npy")
      (('runs,old/a.npy', 'b.npy'), None)
    """
    cuts = [at for at, letter in enumerate(path) if letter == ","]
    found = [(path[:at], path[at + 1 :]) for at in cuts]
    found = [pair for pair in found if all(name.endswith(".npy") for name in pair)]
    there = [pair for pair in found if all(os.path.isfile(name) for name in pair)]
    return next(iter(there or found), None)


def _table(arrays: Arrays) -> parquet.Table:
    return parquet.Table(arrays=arrays, ids=None, captions=None)


def _name(entry: os.DirEntry) -> str:
    return entry.name
