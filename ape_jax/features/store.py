"""Features that this process has at hand already, found by what they were encoded from."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class FeatureStore:
    """Keeps features in memory, so that several runs in a process encode or read them once.

    The key must name everything the features depend on: a `Fingerprint`'s digest does.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Returns the features of a key, made on first use."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]
