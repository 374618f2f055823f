"""Specs of what the user brings: features in the place of a tower's input, or of its output."""

from __future__ import annotations

from typing import Any

PREFIX = "features:"
"""`features:WIDTH` names a tower that takes such features, `features:FILE` the pairs."""


def is_precomputed(spec: Any) -> bool:
    """Whether the spec of a tower or of pairs says that features are precomputed."""
    return isinstance(spec, str) and spec.startswith(PREFIX)
