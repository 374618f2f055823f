"""How pairs are opened: which columns, and what happens to rows that cannot be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ape_jax.config.sections.data import DataConfig

BY_SCRIPT = "auto"
"""The value of `data.language` that tells languages by their script."""

BY_SOURCE = "source"
"""The value of `data.domain` that takes each file for a domain."""

OnError = Literal["error", "skip"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How a source is read; see the config's `data`.

    Attributes:
      columns: names of columns by `image`, `captions`, `id`, `label`, where they are not found by
        themselves, and by `language` and `domain`.
      on_error: "error" stops at rows that cannot be used, "skip" leaves them out and counts them.
      max_skipped: share of the rows above which "skip" stops too.
      look: whether images on disk are looked at: missing and empty ones are rows that cannot be
        used.
      again: whether the source is read again, although its table is in the cache folder.
    """

    columns: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    on_error: OnError = "error"
    max_skipped: float = 0.05
    look: bool = True
    again: bool = False

    @classmethod
    def of(cls, data: DataConfig) -> Reading:
        """What a config's `data` says."""
        columns = {
            role: tuple(x.strip() for x in names.split(",")) if isinstance(names, str) else names
            for role, names in data.columns.items()
        }
        if data.language not in ("", BY_SCRIPT):
            columns["language"] = (data.language,)
        return cls(
            columns={role: tuple(names) for role, names in columns.items()},
            on_error=data.on_error,
            max_skipped=data.max_skipped,
        )
