"""The card's own speed: products of square matrices, and reading from and writing to memory.

Shares of other parts are of these figures, measured on the same card on the same day.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from tests.accelerator import clock
from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings


@functools.cache
def products(dtype: str, size: int) -> float:
    """FLOP/s of `size` x `size` products in a dtype ('tf32': float32 at default precision)."""
    kind = jnp.float32 if dtype == "tf32" else jnp.dtype(dtype)
    precision = "highest" if dtype == "float32" else "default"
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), kind)
    call = jax.jit(functools.partial(jnp.matmul, precision=precision))
    return 2.0 * size**3 / clock.seconds({"": lambda: call(a, b)})[""]


@functools.cache
def memory(size: int) -> float:
    """Bytes a second, read and written, of a copy that changes each of `size` bytes."""
    x = jnp.zeros(size // 4, jnp.float32)
    call = jax.jit(lambda x: x + 1)
    return 2.0 * size / clock.seconds({"": lambda: call(x)})[""]


def run(settings: Settings, figures: Figures) -> None:
    """Prints them."""
    size = settings.pick(8192, 256)
    for dtype in ("bfloat16", "tf32", "float32"):
        rate = products(dtype, size) / 1e12
        figures.measured(f"{size} x {size} products, {dtype}", rate, "TFLOP/s")
    rate = memory(settings.pick(2**32, 2**22)) / 1e9
    figures.measured("memory, read and written", rate, "GB/s")
