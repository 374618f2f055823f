"""Affine maps, the solutions of linear closed forms and the parameters of linear heads."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Affine:
    """An affine map, x @ kernel + bias.

    Attributes:
      kernel: float64 [d, k].
      bias: float64 [k].
    """

    kernel: Float[np.ndarray, "d k"]
    bias: Float[np.ndarray, " k"]

    def __call__(self, x: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n k"]:
        """Maps features [..., d] to [..., k]."""
        return x @ self.kernel + self.bias


def centred(kernel: Float[np.ndarray, "d k"], mean: Float[np.ndarray, " d"]) -> Affine:
    """Makes the affine map (x - mean) @ kernel."""
    return Affine(kernel=kernel, bias=-mean @ kernel)
