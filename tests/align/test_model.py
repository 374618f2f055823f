"""The frozen frontier: what is differentiated, what it costs, and one path for cached features."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ape_jax import towers
from ape_jax.align import heads, losses
from ape_jax.align.model import Model, Side
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.training import step as step_lib


@pytest.fixture(scope="module")
def pair(tiny):
    options = {"dtype": "float32", "unroll": True}
    return (
        towers.read(str(tiny / "image"), kind="image", **options),
        towers.read(str(tiny / "text"), kind="text", **options),
    )


@pytest.fixture(scope="module")
def weights(pair):
    return {"image_tower": pair[0][1], "text_tower": pair[1][1]}


def make_model(pair, **changes):
    (image, _), (text, _) = pair
    head = heads.TokenMLP(32, text.config, depth=3, width=64, dtype=jnp.float32)
    sides = {
        "image": Side(tower=image, head=heads.Identity(), pooling="cls"),
        "text": Side(tower=text, head=head),
    }
    return Model(**{**sides, "standardize": True, **changes})


@pytest.fixture(scope="module")
def model(pair):
    return make_model(pair)


@pytest.fixture
def batch(rng):
    ids = rng.integers(4, 18, size=(16, 8)).astype(np.int32)
    mask = np.arange(8) < rng.integers(2, 9, size=(16, 1))
    image = rng.normal(size=(16, 32, 32, 3)).astype(np.float32)
    index = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 12, 3, 0], np.int32)
    made = {"image": image, "ids": np.where(mask, ids, 0), "mask": mask, "index": index}
    return jax.tree.map(jnp.asarray, made)


def test_only_the_head_and_the_scale_are_trainable_in_ape(model, weights):
    trainable, frozen = model.init(0, weights)
    assert set(trainable) == {"text_head", "loss"}
    assert set(frozen) == {"image_tower", "text_tower", "statistics"}


def test_a_trained_tower_moves_its_frontier_to_the_input(pair, weights, batch):
    text = pair[1][0]
    model = make_model(
        pair,
        text=Side(tower=text, head=heads.OnPooledText(heads.Linear(32), text.config), tune="full"),
    )
    trainable, frozen = model.init(0, weights)
    assert "text_tower" in trainable and "text_tower" not in frozen
    features = model.text_features(frozen, batch)
    assert features.tokens is None
    np.testing.assert_array_equal(features.ids, batch["ids"])


def test_cached_features_give_the_same_loss_as_raw_inputs(model, weights, batch):
    trainable, frozen = model.init(0, weights)
    text = model.encode_texts(frozen, batch)
    cached = {
        "pooled": model.encode_images(frozen, batch["image"]),
        "tokens": text.tokens,
        "mask": text.mask,
        "index": batch["index"],
    }
    raw_loss, cached_loss = (
        step_lib.contrastive_loss(model, "softmax", None, trainable, frozen, b)[0]
        for b in (batch, cached)
    )
    np.testing.assert_allclose(raw_loss, cached_loss, rtol=1e-6)


def test_statistics_centre_and_scale_the_untouched_image_side(model, weights, batch):
    trainable, frozen = model.init(0, weights)
    pooled = np.asarray(model.encode_images(frozen, batch["image"]))
    statistics = {"center": pooled.mean(0), "spread": pooled.std(0)}
    features = model.image_features({**frozen, "statistics": statistics}, batch)
    zimg = model.embed(trainable, frozen, features)
    expected = (pooled - pooled.mean(0)) / pooled.std(0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(zimg, expected, rtol=1e-4, atol=1e-5)


def test_scale_is_bounded_after_an_update_and_can_come_back(model, weights):
    trainable, frozen = model.init(0, weights)
    trainable["loss"]["log_scale"] = jnp.float32(10.0)
    bounded = model.clamp_scale(trainable)
    np.testing.assert_allclose(model.logit_scale(bounded, frozen)[0], 100.0, rtol=1e-5)
    gradient = jax.grad(lambda t: model.logit_scale(t, frozen)[0])(bounded)
    assert gradient["loss"]["log_scale"] > 0


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_loss_and_gradients_on_eight_devices_equal_the_dense_reference(pair, weights, batch, loss):
    model = make_model(pair, bias=-1.0 if loss == "sigmoid" else None)
    trainable, frozen = model.init(0, weights)
    mesh = mesh_lib.make_mesh()

    def reference(trainable):
        zimg = model.embed(trainable, frozen, model.image_features(frozen, batch))
        ztxt = model.embed(trainable, frozen, model.text_features(frozen, batch))
        scale, bias = model.logit_scale(trainable, frozen)
        if loss == "sigmoid":
            return losses.sigmoid_reference(zimg, ztxt, scale, bias, ids=batch["index"])
        return losses.softmax_reference(zimg, ztxt, scale, ids=batch["index"])

    placed = mesh_lib.place_batch(batch, mesh)
    towers_on_mesh = mesh_lib.place_frozen(frozen, mesh, min_size=256)

    def sharded(trainable, frozen, batch):
        return step_lib.contrastive_loss(model, loss, mesh, trainable, frozen, batch)[0]

    value, grads = jax.jit(jax.value_and_grad(sharded))(
        mesh_lib.place_replicated(trainable, mesh), towers_on_mesh, placed
    )
    expected_value, expected = jax.value_and_grad(reference)(trainable)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    assert jax.tree.structure(grads) == jax.tree.structure(expected)
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(expected)):
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def compiled_costs(fn, *args):
    compiled = jax.jit(fn).lower(*args).compile()
    return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.usefixtures("fully_compiled")
def test_a_step_costs_the_forward_pass_of_the_towers_and_three_heads(model, weights, batch):
    trainable, frozen = model.init(0, weights)
    optimizer = optax.adamw(1e-3)
    step = step_lib.make_step(model, "softmax", optimizer)
    state = step_lib.init_state(trainable, optimizer)

    def forward(frozen, batch):
        return model.image_features(frozen, batch), model.text_features(frozen, batch)

    def head(trainable, frozen, batch):
        return model.embed(trainable, frozen, model.text_features(frozen, batch))

    tokens = {"tokens": jnp.zeros((16, 8, 32)), "mask": batch["mask"]}
    step_flops, step_temp = compiled_costs(step, state, frozen, batch, jax.random.key(0))
    forward_flops, forward_temp = compiled_costs(forward, frozen, batch)
    head_flops, _ = compiled_costs(head, trainable, frozen, tokens)
    assert step_flops <= 1.05 * (forward_flops + 3 * head_flops)
    # Gradients of the towers would need a buffer as large as they are.
    tower_bytes = sum(x.nbytes for x in jax.tree.leaves(frozen))
    head_bytes = sum(x.nbytes for x in jax.tree.leaves(trainable))
    assert step_temp < forward_temp + 4 * head_bytes + tower_bytes / 2


def test_nothing_frozen_has_a_gradient_or_changes(model, weights, batch):
    trainable, frozen = model.init(0, weights)
    gradient = jax.grad(
        lambda f: step_lib.contrastive_loss(model, "softmax", None, trainable, f, batch)[0]
    )(frozen)
    assert all(not np.any(g) for g in jax.tree.leaves(gradient))
