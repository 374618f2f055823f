"""Features that one process has encoded, found again by what they were encoded from."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from ape_jax.features.encode import FrozenTower

T = TypeVar("T")

_PROBES = (
    "The quick brown fox, 12,345.67 % of it: jumps over naïve Straßen & cafés!",
    "ein Kater; un chat; gatto; кошка; γάτα; قطة; 猫; ねこ; 고양이; बिल्ली; 🐈",
    "aa bb cc dd ee ff gg hh ii jj kk ll mm nn oo pp qq rr ss tt uu vv ww xx yy zz",
)


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
    # Of the texts or of the images: a directory's tensors may be the same and these not.
    prepare = fingerprint(getattr(tower.prepare, "transform", tower.prepare))
    return (tower.digest, options, config, dtypes, prepare, frozen.layer, frozen.pooling)


def fingerprint(prepare: Any) -> str:
    """A hash of a preparation: of image settings, or of probe texts through a tokenizer.

    A tokenizer has no canonical form to hash; a different one tells itself by its ids.
    """
    if not hasattr(prepare, "encode"):
        return hashlib.sha256(repr(prepare).encode()).hexdigest()[:16]
    ids = prepare(list(_PROBES))["ids"]
    settings = (prepare.prefix, prepare.max_length, ids.tolist())
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]
