"""Tuning of a tower whose blocks are one and the same (ALBERT), beside one whose blocks are copies.

The copies are a BERT that norms no narrower embeddings; it gives the gradient of a shared block as
the sum over its copies.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax import towers
from ape_jax.align.tuning import selection
from ape_jax.align.tuning.tuned import Tuned
from ape_jax.errors import UserError
from ape_jax.towers.loading import abstract_params
from ape_jax.towers.tower import Tower

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 60}
SIZES |= {"intermediate_size": 64, "max_position_embeddings": 16, "embedding_size": 24}


def albert(seed=0):
    module, config = towers.build({"model_type": "albert", **SIZES}, dtype="float32")
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape) + 0.1, jnp.float32),
        abstract_params(module),
    )
    tower = Tower(
        kind="text", module=module, config=config, prepare=dict, spec="albert", digest="albert"
    )
    return tower, params


def copies(tower, params):
    """The tower with three blocks that are the same at first."""
    config = dataclasses.replace(tower.config, tied=False)
    module = tower.module.clone(config=config)
    blocks = jax.tree.map(lambda a: jnp.repeat(a, config.depth, axis=0), params["blocks"])
    return dataclasses.replace(tower, config=config, module=module), {**params, "blocks": blocks}


def gradient(tuned, trainable, frozen, batch):
    def total(trainable):
        return jnp.sum(jnp.sin(tuned.apply(trainable, frozen, batch).pooled))

    return selection.flatten(jax.jit(jax.grad(total))(trainable))


@pytest.mark.parametrize(
    "tune",
    [
        *("full", "top:3", "lora"),
        *(pytest.param(t, marks=pytest.mark.slow) for t in ("layernorm", "bitfit", "adapter")),
    ],
)
def test_the_gradient_is_the_sum_over_copies_of_the_block(random_tower, batch_for, tune):
    batch = batch_for(random_tower("bert"))
    tower, params = albert()
    gradients = []
    for one, own in ((tower, params), copies(tower, params)):
        tuned = Tuned(tower=one, tune=tune, pooling="cls")
        trainable, frozen = tuned.init(jax.random.key(0), own)
        if one.config.tied:
            # What is added begins with zeros, before which nothing has a gradient.
            first = trainable = jax.tree.map(lambda a: a + 0.1, trainable)
        else:
            trainable = jax.tree.map(
                lambda a, like: jnp.broadcast_to(a, like.shape), first, trainable
            )
        gradients.append(gradient(tuned, trainable, frozen, batch))
    tied, summed = gradients
    assert tied.keys() == summed.keys()
    for name, got in tied.items():
        want = summed[name]
        if name.startswith("blocks/"):
            assert got.shape[0] == 1
            want = want.sum(0, keepdims=True)
        np.testing.assert_allclose(got, want, atol=2e-5 * float(np.abs(want).max()) + 1e-7)


def test_a_part_of_the_tower_runs_the_same_block(random_tower, batch_for):
    tower, params = albert()
    batch = batch_for(random_tower("bert"))
    whole = tower.apply(params, batch)
    inner = tower.apply(params, batch, layer=1)
    rest = tower.resume(params, inner.tokens, inner.mask, start=1)
    np.testing.assert_allclose(rest.tokens, whole.tokens, atol=1e-5)
    again, own = copies(tower, params)
    np.testing.assert_allclose(again.apply(own, batch).tokens, whole.tokens, atol=1e-5)


@pytest.mark.parametrize("tune", ["top:1", "append", "append+layernorm"])
def test_a_mode_that_would_make_blocks_differ_is_a_user_error(tune):
    tower, params = albert()
    tuned = Tuned(tower=tower, tune=tune, pooling="cls")
    with pytest.raises(UserError, match="all 3 blocks of the albert tower are one and the same"):
        tuned.init(jax.random.key(0), params)
