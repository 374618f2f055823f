"""Align any pretrained vision transformer with any pretrained text encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ape_jax.errors import UserError

if TYPE_CHECKING:
    from ape_jax.api.aligner import Aligner, load
    from ape_jax.api.fit import fit

__all__ = ["Aligner", "UserError", "fit", "load"]
__version__ = "0.1.0"

_LAZY = {"load": "ape_jax.api.aligner", "Aligner": "ape_jax.api.aligner", "fit": "ape_jax.api.fit"}
_ROOMS = (
    "align",
    "config",
    "data",
    "demo",
    "evaluators",
    "features",
    "images",
    "judges",
    "nn",
    "parallel",
    "recipes",
    "runs",
    "search",
    "storage",
    "studies",
    "towers",
    "training",
)


def __getattr__(name: str) -> Any:
    """Imports rooms when they are first used, so that `import ape_jax` costs nothing."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"ape_jax.{name}")
    raise AttributeError(f"module 'ape_jax' has no attribute {name!r}")
