"""What a closed form gives: the parameters of heads, and the record of how they were found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import PyTree

from ape_jax.align.closed_form.affine import Affine
from ape_jax.config.fields import number

# Keys that several closed forms share; at the default, held-out pairs choose.
L2 = number(0.0, 0.0)
POWER = number(-1.0, -1.0, 16.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solution:
    """Solved heads.

    Attributes:
      record: JSON: what was chosen, with the joint `width` among it, and what the heads must be
        made with.
      heads: parameters f32, `image_head` and `text_head`; a head without any is not there.
    """

    record: Mapping[str, Any]
    heads: Mapping[str, PyTree]


def on_both(text: Affine, image: Affine, record: Mapping[str, Any]) -> Solution:
    """A solution that is a linear map on each side."""
    heads = {"text_head": linear_head(text), "image_head": linear_head(image)}
    return Solution(record=record, heads=heads)


def linear_head(fit: Affine) -> PyTree:
    """The parameters of a linear head, as long as initial ones: cosines do not see the factor.

    An optimizer does: a kernel of another size would learn at another rate.
    """
    factor = 1 / np.sqrt(len(fit.kernel) * np.mean(fit.kernel**2) or 1.0)
    arrays = {"kernel": fit.kernel * factor, "bias": fit.bias * factor}
    return {"projection": {name: value.astype(np.float32) for name, value in arrays.items()}}
