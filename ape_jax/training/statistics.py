"""Mean and standard deviation of image features, over whatever holds them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float

from ape_jax.parallel import hosts
from ape_jax.storage.rows.access import Rows


def moments(*pooled: Float[Rows, "_ V d"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, f32 [d] each, in two passes over blocks in f64.

    The features of a large set fill much of the memory, or more than it: they are read by blocks.
    Each process of a cluster reads some of them; the result is the same for any number.

    Args:
      *pooled: the features of one set of images, or of several that count together.
    """
    count = sum(rows.shape[0] * rows.shape[1] for rows in pooled)
    blocks = [(rows, start) for rows in pooled for start in range(0, len(rows), 4096)]
    mine = range(jax.process_index(), len(blocks), jax.process_count())

    def total(of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        parts = np.zeros((len(blocks), *pooled[0].shape[2:]))
        for k in mine:
            rows, start = blocks[k]
            parts[k] = of(rows[start : start + 4096].astype(np.float64)).sum(axis=(0, 1))
        return sum(hosts.gather_turns(parts)) / count

    mean = total(lambda x: x)
    spread = np.sqrt(total(lambda x: (x - mean) ** 2))
    # A dimension that never varies must not be blown up.
    return mean.astype(np.float32), np.maximum(spread, 1e-6).astype(np.float32)
