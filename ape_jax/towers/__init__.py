"""Pretrained encoders as plain Flax modules.

tower = towers.load("hf:facebook/dinov2-small")      # .tower .params .config .prepare
out = tower(tower.prepare([pil_image, "cat.png"]))   # .tokens .mask .pooled
tower, params = towers.read("hf:facebook/dinov2-small")      # the description, and host arrays
"""

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
