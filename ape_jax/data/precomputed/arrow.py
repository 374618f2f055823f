"""From list columns of Parquet to files of rows, a few rows at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ape_jax.data.precomputed import names
from ape_jax.data.precomputed.lists import Lists
from ape_jax.data.precomputed.source import Source
from ape_jax.errors import UserError
from ape_jax.storage import sealed

ARRAYS = "arrays.json"


def convert(source: Source, folder: Path) -> None:
    """Writes `image`, `text`, `offsets` and `owner` as raw files, and names beside them.

    Captions stand in the order of their images, which is that of their first rows.

    Raises:
      UserError: as `parquet.read_parquet`.
    """
    owner, order, first = names.write(source, folder)
    columns = {name: Lists(source, name, folder / name) for name in source.vectors}
    seen = 0
    for batch in source.batches(source.vectors):
        for name, lists in columns.items():
            rows = lists.read(batch.column(name), seen)
            if name == "image":
                _write_images(lists, rows, owner[seen : seen + batch.num_rows], first, seen, source)
            else:
                lists.write(rows)
        seen += batch.num_rows
    for lists in columns.values():
        lists.close()
    meta: dict[str, Any] = {name: lists.written() for name, lists in columns.items()}
    if "text" in columns:
        counts = columns["text"].counts
        if order is not None:
            _reorder(folder / "text", meta["text"], counts, order)
            counts = counts[order]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype("<i8")
        offsets.tofile(folder / "offsets")
        meta["offsets"] = {"shape": list(offsets.shape), "dtype": "<i8"}
    owner = owner if order is None else owner[order]
    owner.astype("<i8").tofile(folder / "owner")
    meta["owner"] = {"shape": list(owner.shape), "dtype": "<i8"}
    sealed.write(folder / ARRAYS, meta)


def _write_images(
    lists: Lists, rows: np.ndarray, owner: np.ndarray, first: np.ndarray, seen: int, source: Source
) -> None:
    """Writes each image once; rows of one id must agree."""
    numbers = np.arange(seen, seen + len(rows))
    new = first[owner] == numbers
    lists.write(rows[new])
    if new.all():
        return
    known = lists.written_rows(owner[~new])
    same = np.asarray(rows[~new] == known).reshape(len(known), -1).all(axis=1)
    if not same.all():
        row = int(numbers[~new][np.argmin(same)])
        raise UserError(
            f"{source.key}: {source.path}:row {row}: its id is also that of row "
            f"{first[owner[row - seen]]}, which has another vector; give each image its own id"
        )


def _reorder(path: Path, meta: dict[str, Any], counts: np.ndarray, order: np.ndarray) -> None:
    """Rewrites texts in the order of their images."""
    rows = np.memmap(path, np.dtype(meta["dtype"]), "r", shape=tuple(meta["shape"]))
    starts = np.cumsum(counts) - counts
    moved = path.with_suffix(".moved")
    with moved.open("wb") as file:
        for begin in range(0, len(order), 4096):
            some = order[begin : begin + 4096]
            for start, count in zip(starts[some].tolist(), counts[some].tolist(), strict=True):
                file.write(rows[start : start + count].tobytes())
    del rows
    moved.replace(path)
