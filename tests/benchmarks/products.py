"""MKL's matrix products beside XLA's own, on one CPU device.

    APE_JAX_MKL=1 python tests/benchmarks/products.py

multiplies matrices of a tower's and a head's sizes both ways in turn, and prints one JSON line: the
processor's name, and for each type and size MKL's processor time over XLA's, the least of the
rounds of each. Processor time is that of all threads, which neighbours on the machine disturb less
than the time on the wall.
"""

from __future__ import annotations

import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from ape_jax.nn import matmul, mkl

SIZES = ((1576, 384, 1536), (4096, 384, 384), (2048, 768, 3072))
ROUNDS = 15


def main() -> None:
    """Measures and prints."""
    found: dict[str, dict[str, float]] = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        found[jnp.dtype(dtype).name] = {
            "x".join(map(str, size)): round(ratio(size, dtype), 2) for size in SIZES
        }
    line = {"benchmark": "products", "intel": mkl.is_intel(), "processor": processor()}
    print(json.dumps({**line, "mkl_over_xla": found}))


def ratio(size: tuple[int, int, int], dtype: jnp.dtype) -> float:
    """MKL's processor time over XLA's for [n, k] by [k, m]."""
    n, k, m = size
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=shape), dtype) for shape in ((n, k), (k, m)))

    def with_xla(a: jax.Array, b: jax.Array) -> jax.Array:
        with matmul.xla_only():
            return matmul.product(a, b, dtype)

    ways = jax.jit(lambda a, b: matmul.product(a, b, dtype)), jax.jit(with_xla)
    if "mkl" not in str(ways[0].trace(a, b).jaxpr):
        raise SystemExit("MKL is not used here; install ape_jax[cpu] and set APE_JAX_MKL=1")
    least = [float("inf")] * 2
    for _ in range(ROUNDS):
        for i, way in enumerate(ways):
            begin = time.process_time()
            way(a, b).block_until_ready()
            least[i] = min(least[i], time.process_time() - begin)
    return least[0] / least[1]


def processor() -> str:
    """The name of the processor, as Linux gives it."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


if __name__ == "__main__":
    main()
