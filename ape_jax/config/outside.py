"""Specs of towers that encode outside of JAX, and of pairs whose features are precomputed."""

from __future__ import annotations

from typing import Any

PREFIX = "features:"
"""`features:WIDTH` names a tower that takes such features, `features:FILE` the pairs."""

TORCH = "torch:"
"""`torch:hf:NAME`, `torch:timm:NAME` and `torch:st:NAME` name towers that other libraries run."""


def is_precomputed(spec: Any) -> bool:
    """Whether the spec of a tower or of pairs says that features are precomputed."""
    return isinstance(spec, str) and spec.startswith(PREFIX)


def is_torch(spec: Any) -> bool:
    """Whether the spec of a tower says that another library runs it, in torch."""
    return isinstance(spec, str) and spec.startswith(TORCH)


def is_outside(spec: Any) -> bool:
    """Whether the spec of a tower names one that encodes outside of JAX."""
    return is_precomputed(spec) or is_torch(spec)
