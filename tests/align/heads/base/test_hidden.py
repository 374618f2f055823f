"""The hand-written layer against torch's, in value and in every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ape_jax.align.heads.base.hidden import Hidden, gelu
from ape_jax.nn.matmul import product

TORCH = {
    "gelu": torch.nn.functional.gelu,
    "gelu_new": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
    "tanh": torch.tanh,
}


def ours(activation, dtype, x, weight):
    layer = Hidden(24, activation, dtype)
    params = layer.init(jax.random.key(0), x)["params"]
    params["bias"] = jnp.linspace(-1.0, 1.0, 24)

    def loss(params, x):
        y = layer.apply({"params": params}, x)
        return (y * weight).sum(), y

    grads, y = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
    return params, y, (grads[1], grads[0]["kernel"], grads[0]["bias"])


def theirs(activation, params, x, weight):
    x, kernel, bias = (
        torch.tensor(np.asarray(a, np.float64), requires_grad=True)
        for a in (x, params["kernel"], params["bias"])
    )
    y = TORCH[activation](x @ kernel + bias)
    (y * torch.tensor(weight, dtype=torch.float64)).sum().backward()
    return y.detach().numpy(), [a.grad.numpy() for a in (x, kernel, bias)]


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


@pytest.mark.parametrize(
    ("activation", "dtype", "limit"),
    [(activation, jnp.float32, 1e-6) for activation in TORCH]
    # Not relu: rounding moves values over its kink, where the derivative jumps.
    + [(activation, jnp.bfloat16, 1e-2) for activation in TORCH if activation != "relu"],
)
def test_value_and_gradients_equal_torch_in_double(rng, activation, dtype, limit):
    x = jnp.asarray(2 * rng.normal(size=(3, 40, 16)), jnp.float32)
    weight = rng.normal(size=(3, 40, 24)).astype(np.float32)
    params, y, grads = ours(activation, dtype, x, weight)
    expected_y, expected = theirs(activation, params, x, weight)
    assert y.dtype == jnp.float32 and y.shape == (3, 40, 24)
    assert relative(y, expected_y) < limit
    for got, want in zip(grads, expected):
        assert got.dtype == jnp.float32
        assert relative(got, want) < limit


def test_a_narrow_input_is_computed_in_the_layers_type_and_its_gradient_is_narrow(rng):
    x = jnp.asarray(rng.normal(size=(40, 16)), jnp.bfloat16)
    weight = rng.normal(size=(40, 24)).astype(np.float32)
    params, y, grads = ours("gelu", jnp.float32, x, weight)
    expected_y, expected = theirs("gelu", params, x, weight)
    assert relative(y, expected_y) < 1e-6 and relative(grads[1], expected[1]) < 1e-6
    assert grads[0].dtype == jnp.bfloat16


def test_gelu_is_the_exact_one_everywhere():
    x = np.linspace(-12, 12, 200_001, dtype=np.float32)
    wide = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.gelu(wide)
    y.sum().backward()
    x = jnp.asarray(x)
    got, derivative = gelu(x), jax.grad(lambda x: gelu(x).sum())(x)
    # Half a unit in the last place of the largest is 4.8e-7.
    np.testing.assert_allclose(got, y.detach().numpy(), rtol=1e-6, atol=3e-7)
    np.testing.assert_allclose(derivative, wide.grad.numpy(), rtol=1e-6, atol=3e-7)


def test_gelu_keeps_the_ends():
    x = jnp.array([-jnp.inf, -1e30, -40.0, 0.0, 40.0, 1e30, jnp.inf])
    np.testing.assert_array_equal(gelu(x)[1:], np.float32([0, 0, 0, 40, 1e30, np.inf]))
    np.testing.assert_array_equal(jax.grad(lambda x: gelu(x).sum())(x)[1:6], [0, 0, 0.5, 1, 1])


def test_only_two_arrays_of_all_tokens_are_kept_for_the_backward_pass(rng):
    """The usual GELU keeps four."""
    x = jnp.asarray(rng.normal(size=(4096, 64)), jnp.float32)
    layer = Hidden(64, dtype=jnp.float32)
    params = layer.init(jax.random.key(0), x)
    _, pull = jax.vjp(lambda params: layer.apply(params, x), params)
    kept = {id(leaf): leaf for leaf in jax.tree.leaves(pull) if leaf.size == x.size}
    assert len(kept) <= 2


def test_narrow_products_have_the_gradients_of_the_exact_product(rng):
    shapes = (3, 50, 32), (32, 48), (3, 50, 48)
    a, b, g = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    got = jax.jit(lambda a, b: jax.vjp(lambda a, b: product(a, b, jnp.bfloat16), a, b)[1](g))(a, b)
    for x, want in zip(got, (g @ b.T, np.einsum("bnk,bnm->km", a, g))):
        assert x.dtype == jnp.float32 and x.shape == want.shape
        assert relative(x, want) < 1e-2
