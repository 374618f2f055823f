"""Pretrained encoders as plain Flax modules.

tower = towers.load("hf:facebook/dinov2-small")      # .tower .params .config .prepare
out = tower(tower.prepare([pil_image, "cat.png"]))   # .tokens .mask .pooled
tower, params = towers.read("hf:facebook/dinov2-small")      # the description, and host arrays
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ape_jax.towers.bound import BoundTower, load
    from ape_jax.towers.loading import abstract_params, build, read
    from ape_jax.towers.tower import Encoded, Tower, TowerConfig, take_blocks

__all__ = [
    "BoundTower",
    "Encoded",
    "Tower",
    "TowerConfig",
    "abstract_params",
    "build",
    "load",
    "read",
    "take_blocks",
]

_MODULES = {
    "bound": ("BoundTower", "load"),
    "loading": ("abstract_params", "build", "read"),
    "tower": ("Encoded", "Tower", "TowerConfig", "take_blocks"),
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, so that `ape-jax towers --help` waits for no JAX."""
    import importlib

    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"ape_jax.towers.{module}"), name)
    raise AttributeError(f"module 'ape_jax.towers' has no attribute {name!r}")
