"""Rows in memory and rows in files, used alike."""

from __future__ import annotations

from typing import TypeAlias, TypeGuard

import numpy as np
from jaxtyping import Int, Shaped

from ape_jax.storage.rows.chosen import ChosenRows
from ape_jax.storage.rows.mapped import MappedRows

# What features may lie in; jaxtyping takes it as it takes an array.
Rows: TypeAlias = np.ndarray | MappedRows | ChosenRows


def in_memory(rows: Rows) -> Shaped[np.ndarray, "..."]:
    """The rows as an array: read if they are in files, else as they are."""
    return rows if isinstance(rows, np.ndarray) else rows.read()


def is_on_disk(rows: Rows | None) -> TypeGuard[MappedRows | ChosenRows]:
    """Tests whether rows are read from files."""
    return rows is not None and not isinstance(rows, np.ndarray)


def choose(rows: Rows, indices: Int[np.ndarray, "k"]) -> Rows:
    """Some rows: a copy of an array, or what names them in files."""
    if isinstance(rows, np.ndarray):
        return rows[indices]
    return ChosenRows(rows, indices) if isinstance(rows, MappedRows) else rows.choose(indices)
