"""Result of a closed form: parameters of the heads and a record of the hyperparameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, PyTree

from ape_jax.config.fields import number

# Config keys shared by several closed forms; the default is chosen by cross-validation.
L2 = number(0.0, 0.0).explained("Strength of regularisation; 0 chooses it by held-out pairs.")
POWER = number(-1.0, -1.0, 16.0).explained(
    "Exponent that favours directions, or neighbours, that agree; -1 chooses it by held-out pairs."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solution:
    """Parameters of heads that a closed form has solved.

    Attributes:
      record: JSON object with the chosen hyperparameters, among them the joint `width`, from which
        the heads are built.
      heads: f32 parameters of `image_head` and `text_head`; heads without parameters are absent.
      weights: factors f32 [E] of what both heads give, where they are kept apart from the heads.
    """

    record: Mapping[str, Any]
    heads: Mapping[str, PyTree]
    weights: Float[np.ndarray, " e"] | None = None


def on_both(
    text: Affine,
    image: Affine,
    record: Mapping[str, Any],
    weights: Float[np.ndarray, " e"] | None = None,
) -> Solution:
    """Makes a solution from one linear map on each side, and the weights behind both."""
    heads = {"text_head": linear_head(text), "image_head": linear_head(image)}
    weights = None if weights is None else weights.astype(np.float32)
    return Solution(record=record, heads=heads, weights=weights)


def linear_head(fit: Affine) -> PyTree:
    """Parameters of a linear head, scaled to the norm of initial parameters.

    The scale does not change cosines, but it sets the effective learning rate of later training.
    """
    factor = 1 / np.sqrt(len(fit.kernel) * np.mean(fit.kernel**2) or 1.0)
    arrays = {"kernel": fit.kernel * factor, "bias": fit.bias * factor}
    return {"projection": {name: value.astype(np.float32) for name, value in arrays.items()}}


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
