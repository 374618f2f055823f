"""Sampling without state: which record comes when, and every random choice, by (seed, position)."""

from ape_jax.data.sampling.mixture import WeightedOrder, order_of
from ape_jax.data.sampling.order import (
    VERSION,
    Order,
    check_batch,
    generator,
    permutation,
    positions,
    threefry2x32,
    uniform,
    version,
)

__all__ = [
    "VERSION",
    "Order",
    "WeightedOrder",
    "check_batch",
    "generator",
    "order_of",
    "permutation",
    "positions",
    "threefry2x32",
    "uniform",
    "version",
]
