"""Latent augmentations: their statistics, one lambda for both sides, and nothing when off."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from ape_jax.align import heads, latent, losses
from ape_jax.align.latent import Latent
from ape_jax.align.model import Model, Side
from ape_jax.align.packing import ImageFeatures, Packed, TextFeatures
from ape_jax.config.sections import LatentConfig, TrainConfig
from ape_jax.errors import UserError
from ape_jax.towers.tower import Tower, TowerConfig
from ape_jax.training.step import contrastive_loss, init_state, make_step

WIDTH = 8


def tower(kind):
    """No tower is ever run on features."""
    sizes = {"width": WIDTH, "depth": 1, "heads": 1, "mlp_width": WIDTH}
    config = TowerConfig(
        kind=kind, family="none", **sizes, pooling="mean", activation="gelu", norm_eps=1e-6
    )
    return Tower(
        kind=kind, module=nn.Module(), config=config, prepare=dict, spec="none", digest="none"
    )


def make_model(text_head=None):
    text_head = text_head or heads.TokenMLP(
        WIDTH, tower("text").config, depth=2, width=16, dtype=jnp.float32
    )
    return Model(
        image=Side(tower=tower("image"), head=heads.Linear(WIDTH, jnp.float32), pooling="mean"),
        text=Side(tower=tower("text"), head=text_head),
    )


def make_batch(rng, pairs=12, groups=2, size=20):
    lengths = rng.integers(1, 4, (groups, pairs // groups)).astype(np.int32)
    tokens = rng.normal(size=(groups, size, WIDTH)).astype(np.float32)
    for group, used in zip(tokens, lengths.sum(axis=1)):
        group[used:] = 0
    index = np.arange(pairs, dtype=np.int32)
    pooled = rng.normal(size=(pairs, WIDTH)).astype(np.float32)
    batch = {"index": index, "pooled": pooled, "tokens": tokens, "lengths": lengths}
    return jax.tree.map(jnp.asarray, batch)


def perturb(settings, x, seed=0):
    features = ImageFeatures(pooled=jnp.asarray(x)), TextFeatures()
    image, _ = settings.perturb(*features, jax.random.key(seed))
    return np.asarray(image.pooled)


def test_noise_is_normal_in_units_of_each_vector(rng):
    x = rng.normal(size=(4000, 50)).astype(np.float32) * np.float32([1, 100] * 2000)[:, None]
    noise = (perturb(Latent(noise=0.3), x) - x) / np.sqrt((x * x).mean(axis=1, keepdims=True))
    assert abs(noise.std() - 0.3) < 0.003
    assert stats.kstest(noise.ravel()[:5000] / 0.3, "norm").pvalue > 1e-3


def test_dropout_zeroes_its_rate_and_keeps_the_mean(rng):
    x = np.ones((1000, 200), np.float32)
    dropped = perturb(Latent(dropout=0.3), x)
    assert abs((dropped == 0).mean() - 0.3) < 0.005
    np.testing.assert_allclose(dropped[dropped != 0], 1 / 0.7, rtol=1e-6)


def test_padding_stays_zero_and_tokens_do_not(rng):
    batch = make_batch(rng)
    text = TextFeatures(packed=Packed(batch["tokens"], batch["lengths"]))
    _, made = Latent(noise=0.5).perturb(ImageFeatures(), text, jax.random.key(0))
    padding = (batch["tokens"] == 0).all(axis=-1)
    assert (np.asarray(made.packed.tokens)[padding] == 0).all()
    assert (np.asarray(made.packed.tokens)[~padding] != batch["tokens"][~padding]).all()


@pytest.mark.parametrize("alpha", [0.4, 1.0, 5.0])
def test_lambda_is_beta_distributed(alpha):
    keys = jax.random.split(jax.random.key(0), 4000)
    weights = jax.vmap(Latent(mixup=alpha).weight)(keys)
    assert stats.kstest(np.asarray(weights), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_mixed_training_is_training_on_mixed_vectors_with_one_lambda(rng):
    # With a linear head on mean-pooled text, what is mixed are the towers' own pooled features.
    model = make_model(heads.OnPooledText(heads.Linear(WIDTH, jnp.float32), tower("text").config))
    trainable, frozen = model.init(0, {"image_tower": {}, "text_tower": {}})
    batch, key, settings = make_batch(rng), jax.random.key(4), Latent(mixup=1.0)
    got, _ = contrastive_loss(model, "softmax", None, trainable, frozen, batch, key, settings)

    weight = float(settings.weight(key))
    text = np.asarray(Packed(batch["tokens"], batch["lengths"]).pool("mean"))
    sides = [weight * x[::2] + (1 - weight) * x[1::2] for x in (batch["pooled"], text)]

    def embed(name, x):
        layer = trainable[name]["projection"]
        z = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    zimg, ztxt = (embed(n, x) for n, x in zip(("image_head", "text_head"), sides))
    scale = jnp.exp(trainable["loss"]["log_scale"])
    expected = losses.softmax_reference(jnp.asarray(zimg), jnp.asarray(ztxt), scale)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert 0.05 < weight < 0.95


def test_a_token_mlp_mixes_before_its_last_layer(rng):
    model = make_model()
    trainable, frozen = model.init(0, {"image_tower": {}, "text_tower": {}})
    batch = make_batch(rng)
    text = model.text_features(frozen, batch)
    got, _ = model.align(trainable, frozen, text, None, lambda z: latent.mix(z, jnp.float32(0.3)))
    first, last = trainable["text_head"]["dense_0"], trainable["text_head"]["dense_1"]
    hidden = jax.nn.gelu(batch["tokens"] @ first["kernel"] + first["bias"], approximate=False)
    hidden = np.asarray(Packed(hidden, batch["lengths"]).pool("mean"))
    mixed = (0.3 * hidden[::2] + 0.7 * hidden[1::2]) @ last["kernel"] + last["bias"]
    expected = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(("weight", "expected"), [(0.7, [1, 1, 4]), (0.2, [2, 3, 4])])
def test_a_mixed_pair_has_the_id_of_its_larger_part(weight, expected):
    ids = jnp.array([1, 2, 1, 3, 4, 4])
    assert latent.mixed_ids(ids, jnp.float32(weight)).tolist() == expected


def run_steps(settings, rng, steps=3, seed=0):
    model = make_model()
    trainable, frozen = model.init(0, {"image_tower": {}, "text_tower": {}})
    optimizer = optax.adam(1e-2)
    step = jax.jit(make_step(model, "softmax", optimizer, latent=settings))
    state, seen, batch = init_state(trainable, optimizer), [], make_batch(rng)
    for _ in range(steps):
        state, metrics = step(state, frozen, batch, jax.random.key(seed))
        seen.append(float(metrics["loss"]))
    return seen


def test_augmentation_is_keyed_by_seed_and_step():
    settings = Latent(mixup=1.0, noise=0.2, dropout=0.2)
    first, again, other = (
        run_steps(settings, np.random.default_rng(0), seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    # The same batch and parameters at two steps: other draws.
    model = make_model()
    trainable, frozen = model.init(0, {"image_tower": {}, "text_tower": {}})
    batch, key = make_batch(np.random.default_rng(0)), jax.random.key(0)
    values = {
        float(contrastive_loss(model, "softmax", None, trainable, frozen, batch, rng, settings)[0])
        for rng in (jax.random.fold_in(key, step) for step in range(4))
    }
    assert len(values) == 4


def test_off_is_the_same_program():
    assert latent.from_config(LatentConfig()) is None
    model = make_model()
    trainable, frozen = model.init(0, {"image_tower": {}, "text_tower": {}})
    batch = make_batch(np.random.default_rng(0))

    def program(settings):
        step = make_step(model, "softmax", optax.sgd(0.1), latent=settings)
        state = init_state(trainable, optax.sgd(0.1))
        return jax.jit(step).lower(state, frozen, batch, jax.random.key(0)).as_text()

    assert program(Latent()) == program(None)
    assert program(Latent(noise=0.1)) != program(None)


def test_without_a_key_nothing_is_augmented(rng):
    model = make_model()
    trainable, frozen = model.init(0, {"image_tower": {}, "text_tower": {}})
    batch = make_batch(rng)
    arguments = (model, "softmax", None, trainable, frozen, batch, None)
    settings = Latent(mixup=1.0, noise=1.0, dropout=0.5)
    assert contrastive_loss(*arguments, settings) == contrastive_loss(*arguments, None)


@pytest.mark.parametrize(("batch", "micro", "key"), [(24, 0, "batch"), (48, 24, "micro_batch")])
def test_batch_that_cannot_be_mixed_names_one_that_can(batch, micro, key):
    train = TrainConfig(batch=batch, micro_batch=micro)
    with pytest.raises(UserError, match=rf"train.{key}: .* 24 / 2 .* 8 devices; write 32"):
        latent.check_batch(Latent(mixup=1.0), train, 8)
    latent.check_batch(Latent(mixup=1.0), TrainConfig(batch=64, micro_batch=32), 8)
    latent.check_batch(Latent(noise=1.0), train, 8)
    latent.check_batch(None, train, 8)
