"""Layouts of the files that a tower is kept in: how each is recognised, and how it is read.

A layout is a module that declares one `Layout`, and a line in `layouts.LAYOUTS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ape_jax.towers.family import Family
from ape_jax.towers.files.names import NameTable, Tensors
from ape_jax.towers.files.sentence import Modules
from ape_jax.towers.tower import Kind, TowerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A tower in its files.

    Attributes:
      family: its architecture.
      config: as the files have it.
      tables: the ways its tensors may be named.
      tensors: those of the files.
      prepare: (config, options of `towers.read`) -> what turns raw inputs into a batch.
      excluded: as for `Tower`.
      modules: what sentence-transformers' files say, None without.
    """

    family: Family
    config: TowerConfig
    tables: tuple[NameTable, ...]
    tensors: Tensors
    prepare: Callable[[Any, Mapping[str, Any]], Callable[..., Any]]
    excluded: tuple[str, ...] = ()
    modules: Modules | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """One layout.

    Attributes:
      name: for the reader.
      fits: (path, kind) -> whether a path holds it; reads no weights, and raises nothing for files
        of another layout.
      find: (path, kind) -> the tower; of two, the one of this kind.
    """

    name: str
    fits: Callable[[Path, Kind | None], bool]
    find: Callable[[Path, Kind | None], Found]
