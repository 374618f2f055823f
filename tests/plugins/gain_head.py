"""A head from outside the package: a linear map with a learned gain a dimension.

All that the package asks of a head stands in this file; `HEADS.register(GAIN)` adds it.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.align.heads import Head, Site
from ape_jax.config.components import HeadSpec
from ape_jax.config.fields import number

_GAIN = number(2.0, 0.0, 10.0)


class Gain(Head):
    """`gain * (pooled @ kernel)`; the gains start at a value from the config."""

    features: int
    gain: float = _GAIN.default

    @nn.compact
    def __call__(self, pooled: Float[Array, "B d"], *, train: bool = False) -> Float[Array, "B E"]:
        """Maps pooled features to the joint space."""
        shape = (pooled.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(0.02), shape)
        start = nn.initializers.constant(self.gain)
        return jnp.matmul(pooled, kernel) * self.param("gain", start, (self.features,))


def _make(site: Site, *, gain: float) -> Gain:
    return Gain(site.features, gain)


GAIN = HeadSpec(
    name="gain", title="linear with gains", pooled=_make, keys={"gain": _GAIN}, starts_at_zero=False
)
