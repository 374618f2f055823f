"""A tower in two parts: the forward pass from the frontier, and what has a gradient."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax.align.tuning import selection
from ape_jax.align.tuning.tuned import Tuned
from ape_jax.errors import UserError
from ape_jax.towers.bound import BoundTower
from ape_jax.towers.tower import slice_blocks

MODES = (
    "full",
    "top:1",
    "top:3",
    "append",
    "append+layernorm",
    "layernorm",
    "bitfit",
    "adapter",
    "adapter+bitfit+lora+append",
    "lora",
)
# Of these the others are made; which parameters each selects is in test_selection.py.
QUICK_MODES = ("full", "top:1", "append+layernorm", "adapter+bitfit+lora+append")
FAMILIES = ("siglip", "dinov3", "clip_vision", "bert", "clip_text", "mpnet", "qwen3", "modernbert")


def tuned_of(tower, tune, **changes):
    pooling = tower.config.pooling if tower.config.kind == "image" else "none"
    return Tuned(tower=tower.tower, tune=tune, **{"pooling": pooling, **changes})


def close(got, want, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * float(np.abs(b).max()), rtol=0)


def forward(tuned, trainable, frozen, batch):
    if tuned.frontier == "hidden":
        hidden = tuned.encode(frozen, batch)
        return tuned.resume(trainable, frozen, hidden.tokens, hidden.mask)
    return tuned.apply(trainable, frozen, batch)


@pytest.mark.parametrize(
    ("family", "tune"),
    [
        *((family, "top:1") for family in FAMILIES),
        *(("mpnet", tune) for tune in ("top:3", "full", "layernorm", "lora")),
    ],
)
def test_before_a_step_the_tower_is_what_it_was(random_tower, batch_for, family, tune):
    tower, batch = random_tower(family), batch_for(random_tower(family))
    tuned = tuned_of(tower, tune)
    got = jax.jit(partial(forward, tuned))(*tuned.init(jax.random.key(0), tower.params), batch)
    close(got, tower(batch, pooling=tuned.pooling))


@pytest.mark.parametrize(
    ("family", "layer"), [*((family, -1) for family in FAMILIES), ("mpnet", 2), ("siglip", 2)]
)
def test_an_appended_block_is_a_tower_one_block_deeper(random_tower, batch_for, family, layer):
    tower, batch = random_tower(family), batch_for(random_tower(family))
    pooling = "none" if layer == 2 else tuned_of(tower, "frozen").pooling
    tuned = tuned_of(tower, "append", layer=layer, pooling=pooling)
    trainable, frozen = tuned.init(jax.random.key(0), tower.params)
    got = jax.jit(partial(forward, tuned))(trainable, frozen, batch)

    depth = tuned.depth + 1
    config = dataclasses.replace(tower.config, depth=depth)
    module = tower.tower.module.clone(config=config)
    below = slice_blocks(tower.params["blocks"], 0, tuned.depth)
    blocks = jax.tree.map(lambda *x: jnp.concatenate(x), below, trainable["appended"])
    params = {**tower.params, "blocks": blocks}
    described = dataclasses.replace(tower.tower, config=config, module=module)
    deeper = BoundTower(described, params)
    close(got, deeper(batch, layer=layer if layer == -1 else depth, pooling=pooling))


@pytest.mark.parametrize(
    ("family", "tune"),
    [
        *(("siglip", tune) for tune in QUICK_MODES),
        *(("mpnet", tune) for tune in MODES[2:4]),
        ("dinov3", QUICK_MODES[3]),
        *(
            pytest.param(family, tune, marks=pytest.mark.slow)
            for family, quick in (("siglip", QUICK_MODES), ("dinov3", QUICK_MODES[3:]))
            for tune in MODES
            if tune not in quick
        ),
    ],
)
def test_only_the_trainable_tree_has_a_gradient_and_all_of_it(
    random_tower, batch_for, family, tune
):
    tower, batch = random_tower(family), batch_for(random_tower(family))
    tuned = tuned_of(tower, tune)

    def loss(trainable, frozen):
        out = forward(tuned, trainable, frozen, batch)
        total = jnp.sum(jnp.sin(out.tokens) * out.mask[..., None])
        return total if out.pooled is None else total + jnp.sum(jnp.sin(out.pooled))

    ours, theirs = jax.jit(jax.grad(loss, argnums=(0, 1)))(
        *tuned.init(jax.random.key(0), tower.params)
    )
    assert not any(np.any(g) for g in jax.tree.leaves(theirs))
    for name, gradient in selection.flatten(ours).items():
        # LoRA's first factor waits for the second, and a softmax does not see a key's bias.
        if "lora/down" not in name and "key/bias" not in name:
            assert np.any(gradient), name


def test_remat_changes_no_gradient(random_tower, batch_for):
    batch = batch_for(random_tower("bert"))
    gradients = []
    for remat in ("none", "blocks", "all_but_products"):
        tower = random_tower("bert", remat=remat)
        tuned = tuned_of(tower, "adapter+lora")
        trainable, frozen = tuned.init(jax.random.key(0), tower.params)

        def loss(trainable, tuned=tuned, frozen=frozen):
            return jnp.sum(jnp.sin(tuned.apply(trainable, frozen, batch).tokens))

        gradients.append(jax.jit(jax.grad(loss))(trainable))
    close(gradients[1], gradients[0])
    close(gradients[2], gradients[0])


def test_more_blocks_than_there_are_is_a_user_error(random_tower):
    tower = random_tower("bert")
    with pytest.raises(UserError, match=r"'top:3': layer 2 .* above 2 blocks; write 'top:2'"):
        tuned_of(tower, "top:3", layer=2).init(jax.random.key(0), tower.params)


def test_a_mode_that_finds_nothing_to_train_is_a_user_error(random_tower):
    tower = random_tower("vit")
    tuned = tuned_of(tower, "layernorm", layer=0, pooling="cls")
    with pytest.raises(UserError, match="'layernorm' trains nothing of the vit tower"):
        tuned.init(jax.random.key(0), tower.params)
