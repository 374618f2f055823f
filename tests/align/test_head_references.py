"""Heads of more than one product against the published layers in torch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

from ape_jax.align import heads
from ape_jax.align.heads.base import batch_norm
from ape_jax.config.components import heads_of
from ape_jax.config.sections import OptimConfig
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.towers.tower import TowerConfig
from ape_jax.training import optim

TOWER = TowerConfig(
    kind="text",
    family="bert",
    width=12,
    depth=2,
    heads=3,
    mlp_width=24,
    pooling="mean",
    activation="gelu",
    norm_eps=1e-5,
)
D, E = 12, 8


def array(x):
    return torch.tensor(np.asarray(x))


def linear(params):
    made = nn.Linear(*params["kernel"].shape)
    made.weight.data, made.bias.data = array(params["kernel"]).T, array(params["bias"])
    return made


def norm(params):
    made = nn.LayerNorm(len(params["scale"]), eps=1e-5)
    made.weight.data, made.bias.data = array(params["scale"]), array(params["bias"])
    return made


def made(head, *inputs):
    """Parameters, none at its special starting value, and what the head gives."""
    params = head.init(jax.random.key(0), *inputs)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)]
    params = jax.tree.unflatten(tree, leaves)
    return params, np.asarray(jax.jit(head.apply)({"params": params}, *inputs))


def assert_same(ours, theirs):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=2e-5)


@pytest.fixture
def pooled(rng):
    return jnp.asarray(rng.normal(size=(5, D)), jnp.float32)


@pytest.fixture
def captions(rng):
    mask = np.arange(6) < np.array([6, 3, 1, 4])[:, None]
    tokens = jnp.asarray(rng.normal(size=(4, 6, D)), jnp.float32)
    return heads.TextInput(tokens=tokens, mask=jnp.asarray(mask))


def test_residual_mlp_is_fusemix(pooled):
    head = heads.ResidualMLP(E, depth=2, expansion=3, dtype=jnp.float32)
    params, out = made(head, pooled)
    x = array(pooled)
    for i in range(2):
        part = {k: params[f"block_{i}_{k}"] for k in ("norm", "fc1", "fc2")}
        block = nn.Sequential(linear(part["fc1"]), nn.GELU(), linear(part["fc2"]))
        x = x + block(norm(part["norm"])(x))
    assert_same(out, linear(params["projection"])(norm(params["norm"])(x)))
    assert params["block_0_fc1"]["kernel"].shape == (D, 3 * D)


def test_star_mlp_is_sail(pooled):
    params, out = made(heads.StarMLP(E, dtype=jnp.float32), pooled)
    x = norm(params["norm"])(array(pooled))
    x = nn.ReLU6()(linear(params["fc1"])(x)) * linear(params["fc2"])(x)
    assert_same(out, linear(params["projection"])(x))
    assert params["fc1"]["kernel"].shape == (D, 8 * D)


def test_pooled_mlp_is_sharelock_without_its_batch_norm(pooled):
    head = heads.PooledMLP(E, depth=3, width=10, activation="relu", dtype=jnp.float32)
    params, out = made(head, pooled)
    first, second, last = (linear(params[f"dense_{i}"]) for i in range(3))
    assert_same(out, nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)(array(pooled)))


def in_torch(params, stats):
    """ShareLock's `Projection` with these parameters and running statistics."""
    layers = []
    for i in range(2):
        normed = nn.BatchNorm1d(10)
        values, running = params[f"norm_{i}"], stats[f"norm_{i}"]
        normed.weight.data, normed.bias.data = array(values["scale"]), array(values["bias"])
        normed.running_mean = array(running["running_mean"])
        normed.running_var = array(running["running_variance"])
        layers += [linear(params[f"dense_{i}"]), normed, nn.ReLU()]
    return nn.Sequential(*layers, linear(params["dense_2"]))


BATCH_NORM = heads.PooledMLP(
    E, depth=3, width=10, activation="relu", dtype=jnp.float32, norm="batch"
)


@pytest.fixture
def normed(pooled):
    """Parameters and running statistics, none at its special starting value."""
    variables = BATCH_NORM.init(jax.random.key(0), pooled)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [x + 0.1 * jnp.abs(jax.random.normal(k, x.shape)) for x, k in zip(leaves, keys)]
    variables = jax.tree.unflatten(tree, leaves)
    return variables["params"], variables["batch_stats"]


def test_pooled_mlp_with_batch_norm_is_sharelock(pooled, normed):
    params, stats = normed
    variables = {"params": params, "batch_stats": stats}
    out = np.asarray(BATCH_NORM.apply(variables, pooled))
    assert_same(out, in_torch(params, stats).eval()(array(pooled)))
    trained, _ = BATCH_NORM.apply(variables, pooled, train=True, mutable=["batch_stats"])
    assert_same(np.asarray(trained), in_torch(params, stats).train()(array(pooled)))
    plain = heads.PooledMLP(E, depth=3, width=10, activation="relu", dtype=jnp.float32)
    kept = batch_norm.joined({"text_head": params, "batch_stats": {"text_head": stats}})
    folded = batch_norm.folded(kept["text_head"])
    assert_same(out, array(plain.apply({"params": folded}, pooled)))


def test_statistics_beside_their_parameters_part_again(normed):
    params, stats = normed
    trainable = {"text_head": params, "batch_stats": {"text_head": stats}}
    joined = batch_norm.joined(trainable)
    assert joined["text_head"]["norm_0"].keys() >= {"scale", "running_mean", "running_variance"}
    assert jax.tree.all(jax.tree.map(np.array_equal, batch_norm.separated(joined), trainable))


def test_batch_norm_trains_as_torchs_does_statistics_included(rng, normed):
    batches = rng.normal(2.0, 3.0, size=(4, 16, D)).astype(np.float32)
    theirs = in_torch(*normed).train()
    descent = torch.optim.SGD(theirs.parameters(), lr=0.05)
    settings = OptimConfig(name="sgd", b1=0.0, clip=0.0, weight_decay=0.0)
    mesh = mesh_lib.make_mesh(8)
    params, stats = mesh_lib.place_replicated(normed, mesh)
    ours = optim.make_optimizer(settings, lambda step: 0.05, params)
    state = ours.init(params)

    @jax.jit
    def step(params, stats, state, x):
        def loss(params):
            variables = {"params": params, "batch_stats": stats}
            z, updated = BATCH_NORM.apply(variables, x, train=True, mutable=["batch_stats"])
            return (z**2).mean(), updated["batch_stats"]

        grads, after = jax.grad(loss, has_aux=True)(params)
        updates, state = ours.update(grads, state, params)
        return optax.apply_updates(params, updates), after, state

    for x in batches:
        descent.zero_grad()
        (theirs(array(x)) ** 2).mean().backward()
        descent.step()
        params, stats, state = step(params, stats, state, mesh_lib.place_batch(x, mesh))
    after = in_torch(params, stats)
    for name, want in theirs.state_dict().items():
        if "num_batches" not in name:
            np.testing.assert_allclose(after.state_dict()[name], want, rtol=1e-4, atol=1e-5)


def projector(params, x):
    """Freeze-Align's `Patch_Projection` behind its norm."""
    x = norm(params["norm"])(x)
    return linear(params["linear"])(x) + linear(params["fc2"])(nn.GELU()(linear(params["fc1"])(x)))


def test_token_pool_is_freeze_align_on_texts(captions):
    params, out = made(heads.TextTokenPool(E, TOWER, dtype=jnp.float32), captions)
    tokens, mask = array(captions.tokens), array(captions.mask)
    x = projector(params["tokens"], tokens) * mask[..., None]
    projected = linear(params["projection"])(x.sum(1) / mask.sum(1, keepdim=True))
    x = linear(params["fc"])(nn.GELU()(projected)) + projected
    assert_same(out, norm(params["norm"])(x))


def test_token_pool_is_freeze_align_on_images(rng):
    tokens = jnp.asarray(rng.normal(size=(3, 7, D)), jnp.float32)
    params, out = made(heads.ImageTokenPool(E, prefix_tokens=2, dtype=jnp.float32), tokens)
    x = array(tokens)
    patches = projector(params["patches"], x[:, 2:]).mean(1)
    assert_same(out, patches + projector(params["cls"], x[:, 0]))


def attended(queries, tokens, mask=None):
    """torch's attention of learned queries to normed tokens, the heads side by side."""
    x = nn.LayerNorm(D, elementwise_affine=False)(tokens)
    parts = x.unflatten(-1, queries.shape[1:]).transpose(1, 2)
    q = queries.transpose(0, 1)[None].expand(len(x), -1, -1, -1)
    mask = None if mask is None else mask[:, None, None]
    found = nn.functional.scaled_dot_product_attention(q, parts, parts, attn_mask=mask)
    return found.transpose(1, 2).flatten(1)


@pytest.mark.parametrize("parts", [1, 3])
def test_attention_pool_is_torchs_attention_on_texts(captions, parts):
    head = heads.TextAttentionPool(E, TOWER, queries=5, heads=parts, dtype=jnp.float32)
    params, out = made(head, captions)
    params = params["attention"]
    queries = 20 * params["queries"]  # Far from the mean.
    out = np.asarray(
        head.apply({"params": {"attention": {**params, "queries": queries}}}, captions)
    )
    found = attended(array(queries), array(captions.tokens), array(captions.mask))
    assert_same(out, linear(params["projection"])(found))
    means = nn.LayerNorm(D, elementwise_affine=False)(array(captions.tokens))
    means = (means * array(captions.mask)[..., None]).sum(1) / array(captions.mask).sum(1)[:, None]
    assert np.abs(found[0, :D] - means[0]).max() > 0.1


def test_attention_pool_has_the_gradient_of_torchs_attention(captions):
    head = heads.TextAttentionPool(E, TOWER, queries=2, heads=3, dtype=jnp.float32)
    params = head.init(jax.random.key(0), captions)["params"]
    queries = 30 * params["attention"]["queries"]
    factor = np.arange(1.0, 1 + E)

    def ours(queries):
        tree = {"attention": {**params["attention"], "queries": queries}}
        return (head.apply({"params": tree}, captions) * factor).sum()

    theirs = array(queries).requires_grad_()
    found = attended(theirs, array(captions.tokens), array(captions.mask))
    z = linear(params["attention"]["projection"])(found)
    (z * torch.tensor(factor, dtype=torch.float32)).sum().backward()
    np.testing.assert_allclose(jax.grad(ours)(queries), theirs.grad.numpy(), rtol=1e-4, atol=1e-4)


def test_attention_pool_is_torchs_attention_on_images(rng):
    tokens = jnp.asarray(rng.normal(size=(3, 7, D)), jnp.float32)
    head = heads.ImageAttentionPool(E, queries=2, heads=4, dtype=jnp.float32)
    params, out = made(head, tokens)
    params = params["attention"]
    assert_same(
        out, linear(params["projection"])(attended(array(params["queries"]), array(tokens)))
    )


def test_attention_with_scores_of_any_size_is_finite(captions):
    head = heads.TextAttentionPool(E, TOWER, dtype=jnp.float32)
    params = head.init(jax.random.key(0), captions)
    large = jax.tree.map(lambda x: 1e4 * x, params)
    value, gradient = jax.value_and_grad(lambda p: head.apply(p, captions).sum())(large)
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def torch_layer(params):
    layer = nn.TransformerEncoderLayer(
        D, 3, 2 * D, 0.0, "gelu", norm_first=True, batch_first=True, layer_norm_eps=1e-5
    )
    qkv = [params[name] for name in ("query", "key", "value")]
    attention = layer.self_attn
    attention.in_proj_weight.data = torch.cat([array(p["kernel"]).T for p in qkv])
    attention.in_proj_bias.data = torch.cat([array(p["bias"]) for p in qkv])
    attention.out_proj = linear(params["out"])
    layer.linear1, layer.linear2 = linear(params["fc1"]), linear(params["fc2"])
    layer.norm1, layer.norm2 = norm(params["norm1"]), norm(params["norm2"])
    return layer


def test_transformer_layers_are_torchs(captions):
    head = heads.Transformer(E, TOWER, depth=2, expansion=2, dtype=jnp.float32)
    params, out = made(head, captions)
    x, mask = array(captions.tokens), array(captions.mask)
    for i in range(2):
        x = torch_layer(params[f"layer_{i}"])(x, src_key_padding_mask=~mask)
    x = norm(params["norm"])(x) * mask[..., None]
    assert_same(out, linear(params["projection"])(x.sum(1) / mask.sum(1, keepdim=True)))


def test_lookup_averages_the_vectors_of_the_real_tokens(captions, rng):
    ids = jnp.asarray(rng.integers(0, 9, (4, 6)), jnp.int32)
    params, out = made(heads.Lookup(E, TOWER, 9), captions.replace(ids=ids))
    bag = nn.functional.embedding(array(ids).long(), array(params["table"]))
    mask = array(captions.mask)
    assert_same(out, (bag * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


SETTINGS = {
    "depth": 2,
    "width": 6,
    "expansion": 0,
    "activation": "gelu",
    "dropout": 0.0,
    "norm": "none",
    "queries": 2,
    "heads": 3,
}
TABLED = TowerConfig(**TOWER.__dict__)
object.__setattr__(TABLED, "vocab_size", 9)


@pytest.mark.parametrize("name", sorted(set(heads_of("text")) - {"identity"}))
def test_every_part_of_a_sum_but_the_first_starts_at_zero(captions, rng, name):
    ids = jnp.asarray(rng.integers(0, 9, (4, 6)), jnp.int32)
    settings = {**SETTINGS, "name": f"identity+{name}"}
    head = heads.text_head(settings, D, TABLED, "mean", jnp.float32)
    params = head.init(jax.random.key(0), captions.replace(ids=ids))["params"]
    tokens, mask = captions.tokens, captions.mask
    mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)

    def loss(params):
        z = head.apply({"params": params}, captions.replace(ids=ids))
        return (z * np.arange(1.0, 13.0)).sum(), z

    gradient, z = jax.jit(jax.grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(z, mean, atol=1e-6)
    assert set(params) == {f"part_{name}"}
    assert any(np.any(g) for g in jax.tree.leaves(gradient))  # And does not stay there.
