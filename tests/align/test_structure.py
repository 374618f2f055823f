"""The structure term in the loss of a step: of which vectors it is, and that it is global."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ape_jax.align import heads, losses
from ape_jax.align.latent import Latent
from ape_jax.align.model import Model, Side
from ape_jax.align.packing import Packed
from ape_jax.align.structure import Structure
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.towers.tower import Tower, TowerConfig
from ape_jax.training.step import contrastive_loss, init_state, make_step

WIDTH, PAIRS = 8, 32


def tower(kind):
    """No tower is ever run on features."""
    sizes = {"width": WIDTH, "depth": 1, "heads": 1, "mlp_width": WIDTH}
    config = TowerConfig(
        kind=kind, family="none", **sizes, pooling="mean", activation="gelu", norm_eps=1e-6
    )
    return Tower(
        kind=kind, module=nn.Module(), config=config, prepare=dict, spec="none", digest="none"
    )


CONFIG = tower("text").config
TERM = Structure(weight=4.0, ramp=0, temperature=0.2, tower=CONFIG)


@pytest.fixture
def model():
    head = heads.TokenMLP(WIDTH, CONFIG, depth=2, width=16, dtype=jnp.float32)
    return Model(
        image=Side(tower=tower("image"), head=heads.Linear(WIDTH, jnp.float32), pooling="mean"),
        text=Side(tower=tower("text"), head=head),
        standardize=True,
    )


def make_batch(groups):
    """The same captions, packed in so many groups."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 4, PAIRS).astype(np.int32)
    captions = [rng.normal(size=(n, WIDTH)).astype(np.float32) for n in lengths]
    tokens = np.zeros((groups, 3 * PAIRS // groups, WIDTH), np.float32)
    for group, mine in zip(tokens, np.array_split(np.arange(PAIRS), groups)):
        rows = np.concatenate([captions[i] for i in mine])
        group[: len(rows)] = rows
    batch = {
        "index": np.arange(PAIRS, dtype=np.int32),
        "pooled": rng.normal(size=(PAIRS, WIDTH)).astype(np.float32) + 3,
        "tokens": tokens,
        "lengths": lengths.reshape(groups, -1),
    }
    return jax.tree.map(jnp.asarray, batch)


def parameters(model):
    trainable, frozen = model.init(0, {"image_tower": {}, "text_tower": {}})
    statistics = {"center": jnp.full(WIDTH, 3.0), "spread": jnp.full(WIDTH, 0.5)}
    return trainable, {**frozen, "statistics": statistics}


def gradient(model, mesh, **options):
    def loss(trainable, frozen, batch):
        return contrastive_loss(model, "softmax", mesh, trainable, frozen, batch, **options)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def test_the_term_is_added_with_its_weight_and_of_standardised_pooled_features(model):
    trainable, frozen = parameters(model)
    batch = make_batch(1)
    (plain, _), _ = gradient(model, None)(trainable, frozen, batch)
    (value, (_, parts)), _ = gradient(model, None, structure=TERM)(trainable, frozen, batch)
    image, text = model.image_features(frozen, batch), model.text_features(frozen, batch)
    zimg, ztxt = (model.embed(trainable, frozen, x) for x in (image, text))
    pooled = Packed(jnp.asarray(batch["tokens"]), jnp.asarray(batch["lengths"])).pool("mean")
    terms = [
        losses.structure((batch["pooled"] - 3) / 0.5, zimg, temperature=0.2),
        losses.structure(pooled, ztxt, temperature=0.2),
    ]
    np.testing.assert_allclose(parts["structure"], (terms[0] + terms[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(parts["contrastive"], plain, rtol=1e-6)
    np.testing.assert_allclose(value, plain + 2 * (terms[0] + terms[1]), rtol=1e-5)
    assert parts["structure"] > 1e-3


@pytest.mark.parametrize(("devices", "chunks", "mixup"), [(8, 1, 1.0), (8, 2, 0.0)])
def test_eight_devices_and_micro_batches_have_the_gradient_of_one_batch(
    model, devices, chunks, mixup
):
    options = {"structure": TERM, "rng": jax.random.key(1)}
    options["latent"] = Latent(mixup=mixup) if mixup else None
    trainable, frozen = parameters(model)
    whole, expected = gradient(model, None, **options)(trainable, frozen, make_batch(1))
    mesh = mesh_lib.make_mesh(devices)
    batch = mesh_lib.place_batch(make_batch(devices * chunks), mesh)
    placed = mesh_lib.place_replicated((trainable, frozen), mesh)
    cut, found = gradient(model, mesh, chunks=chunks, **options)(*placed, batch)
    np.testing.assert_allclose(cut[0], whole[0], rtol=1e-5)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max() + 1e-8


def test_noise_on_the_features_leaves_what_is_kept_as_it_is(model):
    trainable, frozen = parameters(model)
    image, text = (f(frozen, make_batch(1)) for f in (model.image_features, model.text_features))
    clean = TERM.pooled(image, text)
    noisy = Latent(dropout=0.5).perturb(image, text, jax.random.key(1))
    after = [model.embed(trainable, frozen, x) for x in noisy]
    term = sum(losses.structure(x, z, temperature=0.2) for x, z in zip(clean, after)) / 2
    options = {"rng": jax.random.key(1), "latent": Latent(dropout=0.5), "structure": TERM}
    _, parts = gradient(model, None, **options)(trainable, frozen, make_batch(1))[0][1]
    np.testing.assert_allclose(parts["structure"], term, rtol=1e-5)


def test_the_weight_rises_from_zero_over_the_ramp(model):
    trainable, frozen = parameters(model)
    term = Structure(weight=4.0, ramp=4, temperature=0.2, tower=CONFIG)
    optimizer = optax.sgd(0.0)
    step = jax.jit(make_step(model, "softmax", optimizer, structure=term))
    state, shares = init_state(trainable, optimizer), []
    for _ in range(6):
        state, metrics = step(state, frozen, make_batch(1), jax.random.key(0))
        added = metrics["loss"] - metrics["contrastive"]
        shares.append(float(added / (4 * metrics["structure"])))
    np.testing.assert_allclose(shares, [0, 0.25, 0.5, 0.75, 1, 1], atol=1e-5)


def test_images_that_are_not_pooled_count_by_the_mean_of_their_tokens(model):
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(PAIRS, 5, WIDTH)), jnp.float32)
    text = model.text_features({}, make_batch(1))
    image = model.image_features(parameters(model)[1], make_batch(1)).replace(pooled=tokens)
    found, _ = TERM.pooled(image, text)
    np.testing.assert_allclose(found, np.asarray(tokens).mean(axis=1), atol=1e-6)
