"""Dataclasses that JAX maps over, with the type checks of the tests on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ape_jax.nn.tree import Tree


class Two(Tree):
    """Two vectors of one length."""

    a: Float[Array, " n"]
    b: Float[Array, " n"] | None = None


def test_anything_may_take_the_place_of_an_array():
    two = Two(a=jnp.ones(3))
    assert jax.tree.map(jnp.shape, two) == Two(a=(3,))
    assert jax.eval_shape(lambda x: x, two).a.shape == (3,)
    assert two.replace(b=two.a).b.shape == (3,)
