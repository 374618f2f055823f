"""Ids of images: those that rows give, else their paths."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int64

from ape_jax.data.table import schema
from ape_jax.data.table.joining.columns import take
from ape_jax.data.table.joining.groups import Groups, groups, several
from ape_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


class Names(NamedTuple):
    """Where the ids of images come from.

    Attributes:
      rows: the row whose explicit id an image has, i64 [g], -1 for the default name; None where no
        image has an explicit id.
      labels: of each file, put before its ids; () where ids of all files are different.
      note: what is said about them; "" where nothing is.
    """

    rows: Int64[np.ndarray, " g"] | None
    labels: Sequence[str] = ()
    note: str = ""


def explicit_ids(
    batches: Sequence[pa.RecordBatch], found: Groups, files: Sequence[str], root: str
) -> Names:
    """The ids that rows give their images.

    An id never splits an image: where the rows of an image have several ids, they are the captions'
    and images have their default names. Equal ids in different files are different images.

    Raises:
      UserError: two images of one file have the same id.
    """
    import pyarrow as pa

    table = pa.Table.from_batches(batches, schema.rows()).select(["id", "file", "at"])
    column = table.column("id")
    if column.null_count == len(column):
        return Names(None)
    hashes = np.zeros((len(column), 2), np.uint64)
    given = np.zeros(len(column), bool)
    at = 0
    for chunk in column.chunks:
        for value in chunk.to_pylist():
            if value is not None:
                given[at] = True
                digest = hashlib.blake2b(value.encode(), digest_size=16).digest()
                hashes[at] = np.frombuffer(digest, "<u8")
            at += 1
    rows = np.flatnonzero(given)
    of_id = groups(hashes[rows])
    image = found.group[rows]
    differing = several(image, of_id.group)
    if differing.any():
        count, images = len(of_id.first), len(np.unique(image))
        note = (
            f"the ids differ among the captions of one image ({count} ids, {images} images): "
            "captions are joined by the image, which is named by its path"
        )
        return Names(None, (), note)
    shared = several(of_id.group, image)
    if not shared.any():
        return Names(_first_rows(rows, image, len(found.first)))
    file = np.asarray(table.column("file"))[rows]
    scoped = of_id.group * (int(file.max()) + 1) + file
    if (clash := several(scoped, image)).any():
        raise _clash(table, rows, scoped, image, int(np.flatnonzero(clash)[0]), files)
    note = "equal ids in different files are different images; the file's name is put before them"
    labels = [os.path.relpath(file, root) for file in files]
    return Names(_first_rows(rows, image, len(found.first)), labels, note)


def ids_of(table: pa.Table, names: Names, heads: dict[str, pa.Array], block: slice) -> pa.Array:
    """The ids of a block of images."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if names.rows is None:
        return heads["name"]
    rows = names.rows[block]
    taken = take(table.select(["id", "file"]), np.maximum(rows, 0))
    given = taken["id"]
    if names.labels:
        labels = pa.array(names.labels).take(taken["file"])
        given = pc.call_function("binary_join_element_wise", [labels, given, pa.scalar(":")])
    chosen = [pa.array(rows >= 0), given.cast(pa.binary()), heads["name"]]
    return pc.call_function("if_else", chosen)


def default_names(heads: dict[str, pa.Array], root: str) -> pa.Array:
    """The default ids: names that readers gave, else paths as seen from the root."""
    import pyarrow as pa
    import pyarrow.compute as pc

    prefix = f"{root.rstrip('/')}/".encode("utf-8", "surrogatepass")
    path = heads["path"]
    options = pc.MatchSubstringOptions(prefix)
    below = pc.call_function("starts_with", [path], options)
    cut = pc.ReplaceSliceOptions(0, len(prefix), b"")
    inside = pc.call_function("binary_replace_slice", [path], cut)
    names = pc.call_function("if_else", [below, inside, path])
    return pc.call_function("coalesce", [heads["name"], names]).cast(pa.binary())


def _first_rows(rows: np.ndarray, image: np.ndarray, count: int) -> Int64[np.ndarray, " g"]:
    """The first of the rows of each image, -1 where it has none."""
    out = np.full(count, -1)
    images, at = np.unique(image, return_index=True)
    out[images] = rows[at]
    return out


def _clash(
    table: pa.Table, rows: np.ndarray, scoped: np.ndarray, image: np.ndarray, i: int,
    files: Sequence[str],
) -> UserError:  # fmt: skip
    other = int(np.flatnonzero((scoped == scoped[i]) & (image != image[i]))[0])
    first, second = sorted((int(rows[i]), int(rows[other])))

    def where(row: int) -> str:
        return f"{files[table.column('file')[row].as_py()]}:{table.column('at')[row].as_py()}"

    value = table.column("id")[first].as_py()
    return UserError(
        f"{where(second)}: the id {value!r} is also that of another image at {where(first)}; give "
        "each image its own id"
    )
