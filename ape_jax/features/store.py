"""Features that one process has encoded, found again by what they were encoded from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from ape_jax.features.encode import FrozenTower

T = TypeVar("T")


class FeatureStore:
    """Keeps encoded features in memory, so that several runs in a process encode once.

    The key must name everything the features depend on; `tower_key` gives a tower's part.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gave for this key the first time."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def tower_key(frozen: FrozenTower) -> Hashable:
    """All of a frozen tower that its features depend on: weights, preparation, what is read."""
    tower = frozen.tower
    options = tuple(sorted((name, str(value)) for name, value in tower.options.items()))
    config = tuple(sorted((k, str(v)) for k, v in dataclasses.asdict(tower.config).items()))
    dtypes = (str(tower.module.dtype), str(tower.module.param_dtype))
    # Of the texts and of the images: a directory's tensors may be the same and these not.
    prepare = (getattr(tower.prepare, name, None) for name in ("prefix", "transform"))
    return (tower.digest, options, config, dtypes, *prepare, frozen.layer, frozen.pooling)
