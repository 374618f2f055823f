"""Pretrained encoders as plain Flax modules.

tower = towers.load("hf:facebook/dinov2-small")      # .module .params .config .prepare
out = tower(tower.prepare([pil_image, "cat.png"]))   # .tokens .mask .pooled
"""

from ape_jax.towers.loading import build, load
from ape_jax.towers.shapes import abstract_params
from ape_jax.towers.tower import Encoded, Tower, TowerConfig, take_blocks

__all__ = [
    "Encoded",
    "Tower",
    "TowerConfig",
    "abstract_params",
    "build",
    "load",
    "take_blocks",
]
