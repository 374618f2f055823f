"""How far a rate of a sample may be from the true one."""

from __future__ import annotations

import math

_Z = 1.96  # Standard deviations either side of 95 %.


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The range that holds the true rate in 95 of 100 samples.

    Example:
      >>> low, high = wilson(50, 100)
      >>> round(low, 2), round(high, 2)
      (0.4, 0.6)

    Args:
      hits: successes.
      count: trials, at least 1.

    Returns:
      Two rates in [0, 1].

    References:
      Wilson, `Probable inference, the law of succession, and statistical inference
      <https://doi.org/10.1080/01621459.1927.10502953>`_, 1927.
    """
    rate, z2 = hits / count, _Z**2
    centre = (rate + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z * math.sqrt(rate * (1 - rate) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)
