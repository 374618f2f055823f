"""The heads against a plain reading of the papers, in torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ape_jax.align import heads
from ape_jax.towers.tower import TowerConfig

TOWER = TowerConfig(
    kind="text",
    family="bert",
    width=12,
    depth=2,
    heads=2,
    mlp_width=24,
    pooling="mean",
    activation="gelu",
    norm_eps=1e-6,
)


@pytest.fixture
def captions(rng):
    tokens = jnp.asarray(rng.normal(size=(4, 6, 12)), jnp.float32)
    mask = np.arange(6) < np.array([6, 3, 1, 4])[:, None]
    return heads.TextInput(tokens=tokens, mask=jnp.asarray(mask))


def test_token_mlp_equals_mlp_on_each_token_then_masked_mean(captions):
    tokens, mask = np.asarray(captions.tokens), np.asarray(captions.mask)
    head = heads.TokenMLP(8, TOWER, depth=4, width=16, dtype=jnp.float32)
    params = head.init(jax.random.key(0), captions)["params"]
    x = torch.tensor(tokens)
    for i in range(4):
        kernel, bias = (
            torch.tensor(np.asarray(params[f"dense_{i}"][k])) for k in ("kernel", "bias")
        )
        x = x @ kernel + bias
        x = torch.nn.functional.gelu(x) if i < 3 else x
    weight = torch.tensor(mask)[..., None].float()
    expected = (x * weight).sum(1) / weight.sum(1)
    out = head.apply({"params": params}, captions)
    np.testing.assert_allclose(out, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_padding_does_not_change_a_caption(captions):
    head = heads.TokenMLP(8, TOWER, width=16, dtype=jnp.float32)
    params = head.init(jax.random.key(0), captions)
    noise = jnp.where(captions.mask[..., None], captions.tokens, 1e3)
    noisy = captions.replace(tokens=noise)
    np.testing.assert_array_equal(head.apply(params, captions), head.apply(params, noisy))


def test_token_mlp_of_one_layer_is_linear_on_mean_pooled_text(captions):
    mlp = heads.TokenMLP(8, TOWER, depth=1, dtype=jnp.float32)
    params = mlp.init(jax.random.key(0), captions)["params"]
    linear = heads.OnPooledText(heads.Linear(8, jnp.float32), TOWER)
    same = {"projection": params["dense_0"]}
    np.testing.assert_allclose(
        mlp.apply({"params": params}, captions),
        linear.apply({"params": same}, captions),
        rtol=1e-6,
    )


def test_parameter_counts_of_the_ape_paper():
    """7.51 % and 22.53 % of BERT-large's 334 M: FACTS of arXiv 2210.03927."""
    large = TowerConfig(**{**TOWER.__dict__, "width": 1024, "heads": 16})
    tokens = jax.ShapeDtypeStruct((1, 2, 1024), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 2), bool)
    text = heads.TextInput(tokens=tokens, mask=mask)

    def count(depth, width):
        head = heads.TokenMLP(1024, large, depth=depth, width=width)
        shapes = jax.eval_shape(head.init, jax.random.key(0), text)
        return sum(x.size for x in jax.tree.leaves(shapes))

    bert_large = 335_141_888  # transformers' BertModel with bert-large-uncased's config.
    assert round(100 * count(4, 3072) / bert_large, 2) == 7.51
    assert round(100 * count(6, 4096) / bert_large, 2) == 22.53


def test_dropout_only_in_training(captions):
    head = heads.TokenMLP(8, TOWER, width=16, dropout=0.5, dtype=jnp.float32)
    params = head.init(jax.random.key(0), captions)
    quiet = head.apply(params, captions)
    loud = head.apply(params, captions, train=True, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_array_equal(quiet, head.apply(params, captions))
    assert np.abs(quiet - loud).max() > 1e-3


def test_normalize_keeps_a_zero_row_finite():
    z = heads.normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(z, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
