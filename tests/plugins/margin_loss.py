"""A loss from outside the package: a hinge on the margin between a pair and its negatives.

All that the package asks of a loss stands in this file; `LOSSES.register(MARGIN)` adds it.
"""

import jax
import jax.numpy as jnp

from ape_jax.align.losses.contrastive import negative_mask
from ape_jax.config.components import LossSpec
from ape_jax.config.fields import number


def margin(zimg, ztxt, scale, *, margin, ids=None, text_ids=None, groups=1, mesh=None, impl="auto"):
    """Mean over images of the summed hinges, by the scale; one dense matrix whatever `impl` is."""
    negative = negative_mask(len(zimg), ids, text_ids, groups, mesh)
    cosines = jnp.matmul(zimg, ztxt.T, precision="highest")
    hinges = jax.nn.relu(margin + cosines - jnp.diagonal(cosines)[:, None])
    return scale * jnp.where(negative, hinges, 0).sum() / len(zimg)


MARGIN = LossSpec(
    name="margin", title="hinge", function=margin, keys={"margin": number(0.2, 0.0, 2.0)}
)
