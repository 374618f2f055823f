"""A closed form from outside the package: each side about its mean, and nothing else.

All that the package asks of one stands in this file; `CLOSED_FORMS.register(MEAN_SHIFT)` adds it.
"""

import numpy as np

from ape_jax.align.closed_form import Affine, Solution, moments
from ape_jax.align.closed_form.solution import on_both
from ape_jax.align.heads.linear import LINEAR
from ape_jax.config.components import ClosedFormSpec
from ape_jax.config.fields import number


def _solve(paired, *, width, share) -> Solution:
    sums = moments(paired)
    text, image = (
        Affine(kernel=np.eye(len(mean)), bias=-share * mean)
        for mean in (sums.text_mean, sums.image_mean)
    )
    return on_both(text, image, {"share": share, "width": len(text.bias)})


MEAN_SHIFT = ClosedFormSpec(
    name="mean_shift",
    title="means taken off",
    solve=_solve,
    image=LINEAR,
    text=LINEAR,
    keys={"share": number(1.0, 0.0, 1.0)},
)
