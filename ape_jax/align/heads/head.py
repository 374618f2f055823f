"""What all heads share: their base class, how they are applied, unit length, layers at zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ape_jax.align.heads.text_input import TextInput

DType = Any
Mix = Callable[[Array], Array]


class Head(nn.Module):
    """Maps what a tower gives to the joint space, not yet at unit length.

    An image head takes pooled features [B, d] or all tokens [B, T, d], a text head a `TextInput`;
    both take `train`.
    """

    @property
    def mixes_input(self) -> bool:
        """Whether mixup acts on the one vector that the head takes, and not on its output.

        It must where a head on one vector is not linear; a text head then takes `mix` as well.
        """
        return False


def embed(
    head: Head,
    params: PyTree,
    inputs: Float[Array, "B *T d"] | TextInput,
    rng: Array | None,
    mix: Mix | None,
) -> Float[Array, "B E"]:
    """Unit-length embeddings.

    Args:
      head: the head.
      params: its parameters.
      inputs: what it takes.
      rng: key of dropout in training; None for inference.
      mix: maps one vector a row to another, as mixup does; see `Head.mixes_input`.
    """
    settings: dict[str, Any] = {"train": rng is not None}
    settings["rngs"] = None if rng is None else {"dropout": rng}
    if mix is not None and head.mixes_input:
        if isinstance(inputs, TextInput):
            settings["mix"] = mix
        else:
            inputs = mix(inputs)
        mix = None
    z = head.apply({"params": params}, inputs, **settings)
    return normalize(z if mix is None else mix(z))


def normalize(z: Float[Array, "B E"]) -> Float[Array, "B E"]:
    """Rows at unit length in f32; a zero row stays zero instead of turning into NaN."""
    z = z.astype(jnp.float32)
    return z * jax.lax.rsqrt(jnp.maximum(jnp.sum(z * z, axis=-1, keepdims=True), 1e-24))


def last_kernel(zero: bool, usual: nn.initializers.Initializer) -> nn.initializers.Initializer:
    """The initialiser of a head's last layer; at zero, the head adds nothing at first."""
    return nn.initializers.zeros if zero else usual
