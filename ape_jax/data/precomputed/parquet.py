"""Own features in Parquet: list columns are written once as files that can be mapped.

They lie in the cache folder, one directory for each Parquet file, and are made again where that
file has changed. A small file is read at every start.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ape_jax.data.precomputed import arrow, names
from ape_jax.data.precomputed.arrays import Arrays
from ape_jax.data.precomputed.file_array import FileArray, in_memory
from ape_jax.data.precomputed.source import Source
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.storage import files, lock, sealed, verified
from ape_jax.storage.disk import cache_dir, require_space, write_errors
from ape_jax.storage.rows.mapped import Part

if TYPE_CHECKING:
    import pyarrow as pa

_VERSION = 1
_META = "meta.json"
_SMALL = 2**26  # Bytes of vectors that are read at every start.
_REMEDY = "set APE_JAX_CACHE to a directory on another disk"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Own features of a Parquet file.

    Attributes:
      arrays: the vectors.
      ids: names of images, None where rows have none.
      captions: words in the order of images, None where captions are vectors.
    """

    arrays: Arrays
    ids: pa.ChunkedArray | None
    captions: pa.ChunkedArray | None


def read_parquet(path: str, key: str) -> Table:
    """Reads `image` (lists of numbers), `text` (likewise) or `caption` (words), and `id`.

    Rows with the same `id` are captions of one image and must give the same vector for it.

    Args:
      path: the file.
      key: the config key to name in messages.

    Raises:
      UserError: a missing or damaged file, missing columns, lists of different widths, a disk that
        is full.
    """
    try:
        files.check(path, f"{key}: {path!r}")
    except FileNotFoundError:
        raise UserError(f"{key}: there is no file {path!r}; correct the path") from None
    source = Source(path, key)
    if source.nbytes <= _SMALL:
        with tempfile.TemporaryDirectory(prefix="ape_jax_") as folder:
            arrow.convert(source, Path(folder))
            return _open(Path(folder), loaded=True)
    root, state = cache_dir(), os.stat(path)
    stamp = {"version": _VERSION, "size": state.st_size, "time": state.st_mtime_ns}
    name = hashlib.sha256(os.path.abspath(path).encode(errors="surrogateescape")).hexdigest()[:32]

    def build(folder: Path) -> None:
        require_space(folder, source.nbytes, f"{path} read as vectors needs", _REMEDY)
        hosts.say(f"{path}: vectors are written once to {root / 'vectors' / name}, to be mapped")
        arrow.convert(source, folder)
        names = sorted(file.name for file in folder.iterdir())
        sealed.write(folder / _META, {**stamp, "sha256": verified.hashes(folder, names)})

    def is_complete(folder: Path) -> bool:
        try:
            found = sealed.read(folder / _META)
            expected = found.pop("sha256")
        except (FileNotFoundError, UserError, KeyError):
            return False
        if found != stamp:
            return False
        if wrong := verified.damage(folder, expected):
            _say_once(f"{folder}: {wrong}; the vectors of {path} are written anew")
        return not wrong

    with write_errors(f"The cache {root}", _REMEDY):
        made = lock.make_once(
            root / "vectors" / name, build, is_complete, locks=root / "locks", say=hosts.say
        )
    return _open(made, loaded=False)


def _open(folder: Path, *, loaded: bool) -> Table:
    """The vectors that `arrow.convert` has written."""
    meta = sealed.read(folder / arrow.ARRAYS)

    def array(name: str) -> FileArray:
        shape, dtype = tuple(meta[name]["shape"]), np.dtype(meta[name]["dtype"])
        found = FileArray(shape=shape, dtype=dtype, parts=(Part(folder / name, shape[0]),))
        return in_memory(found.whole()) if loaded else found

    has_vectors = "text" in meta
    return Table(
        arrays=Arrays(
            image=array("image"),
            text=array("text") if has_vectors else None,
            offsets=array("offsets").whole() if has_vectors else None,
            owner=array("owner").whole(),
        ),
        ids=names.read("id", folder, loaded=loaded),
        captions=names.read("caption", folder, loaded=loaded),
    )


_say_once = functools.lru_cache(maxsize=64)(hosts.say)  # A folder is looked at twice.
