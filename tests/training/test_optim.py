"""Optimizers against plain optax and torch, and the rules by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ape_jax.config.sections import OptimConfig
from ape_jax.errors import UserError
from ape_jax.training import optim

TREE = {
    "head": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "loss": {"log_scale": jnp.ones(())},
}


def test_cosine_schedule_warms_up_and_ends_at_its_share():
    schedule = optim.make_schedule(OptimConfig(lr=0.1, warmup=10, lr_end=0.1), steps=110)
    np.testing.assert_allclose([schedule(0), schedule(5), schedule(10)], [0, 0.05, 0.1], atol=1e-7)
    np.testing.assert_allclose([schedule(60), schedule(110)], [0.055, 0.01], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "end"), [("constant", 0.1), ("linear", 0.0), ("rsqrt", 0.1 / 11**0.5)]
)
def test_other_schedules_end_where_they_should(name, end):
    schedule = optim.make_schedule(OptimConfig(lr=0.1, schedule=name, warmup=0), steps=10)
    np.testing.assert_allclose(schedule(10), end, atol=1e-7)


def test_adamw_with_decay_on_kernels_equals_torch():
    chain = OptimConfig(lr=0.01, weight_decay=0.1, clip=0.0, schedule="constant")
    optimizer = optim.make_optimizer(chain, optim.make_schedule(chain, 10), TREE)
    kernel = torch.nn.Parameter(torch.ones(2, 3))
    others = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(()))]
    groups = [{"params": [kernel], "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.999), eps=1e-8)
    params, state = TREE, optimizer.init(TREE)
    for i in range(3):
        grads = jax.tree.map(lambda p, i=i: jnp.cos(p + i), params)
        updates, state = optimizer.update(grads, state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        for parameter in (kernel, *others):
            parameter.grad = torch.cos(parameter.detach() + i)
        reference.step()
    np.testing.assert_allclose(params["head"]["kernel"], kernel.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(params["head"]["bias"], others[0].detach().numpy(), rtol=1e-5)


def test_multiplier_scales_the_update_of_what_it_names():
    mults = ((".*log_scale", 5.0),)
    chain = OptimConfig(name="sgd", b1=0.0, clip=0.0, schedule="constant", lr=1.0, lr_mults=mults)
    optimizer = optim.make_optimizer(chain, optim.make_schedule(chain, 10), TREE)
    grads = jax.tree.map(jnp.ones_like, TREE)
    updates, _ = optimizer.update(grads, optimizer.init(TREE), TREE)
    np.testing.assert_allclose(updates["loss"]["log_scale"], -5.0)
    np.testing.assert_allclose(updates["head"]["bias"], -1.0)


@pytest.mark.parametrize("key", ["decay_on", "lr_mults"])
def test_rule_that_matches_nothing_is_an_error(key):
    value = "nothing" if key == "decay_on" else (("nothing", 2.0),)
    chain = OptimConfig(weight_decay=0.1, **{key: value})
    with pytest.raises(UserError, match=f"optim.{key}.*head/kernel"):
        optim.make_optimizer(chain, optim.make_schedule(chain, 10), TREE)


def test_clipping_uses_the_norm_of_what_is_trained():
    chain = OptimConfig(name="sgd", b1=0.0, clip=1.0, schedule="constant", lr=1.0)
    optimizer = optim.make_optimizer(chain, optim.make_schedule(chain, 10), TREE)
    grads = jax.tree.map(lambda x: 10 * jnp.ones_like(x), TREE)
    updates, _ = optimizer.update(grads, optimizer.init(TREE), TREE)
    norm = np.sqrt(sum(float((u**2).sum()) for u in jax.tree.leaves(updates)))
    np.testing.assert_allclose(norm, 1.0, rtol=1e-5)
