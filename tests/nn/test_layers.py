"""Products, attention and the stack, piece by piece."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax.nn.attention import NOTHING, Attention, Context, key_bias
from ape_jax.nn.blocks import Block, BlockConfig
from ape_jax.nn.layers import NormConfig
from ape_jax.nn.matmul import product
from ape_jax.nn.stack import run_stack


def plain(**sizes):
    return BlockConfig(norm=NormConfig(eps=1e-6), **sizes)


def normal(shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape) / 2, jnp.float32)


def random_variables(module, *args):
    """Drawn with numpy, because compiling jax.random costs more than the tests."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
    return jax.tree.map(lambda s: normal(s.shape), shapes)


@pytest.mark.parametrize("shapes", [((2, 5, 8), (8, 3)), ((2, 4, 5, 8), (2, 4, 8, 3))])
def test_bfloat16_product_and_its_gradient_stay_close_to_float32(shapes):
    a, b = (normal(shape) for shape in shapes)

    def loss(a, b, dtype):
        return (product(a, b, dtype) ** 2).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
    wide, narrow = gradient(a, b, jnp.float32), gradient(a, b, jnp.bfloat16)
    for w, n in zip(wide, narrow, strict=True):
        assert n.dtype == jnp.float32
        assert jnp.abs(w - n).max() < 0.02 * jnp.abs(w).max()


def test_backward_products_take_narrow_inputs():
    a, b = jnp.ones((4, 8)), jnp.ones((8, 3))
    gradient = jax.grad(lambda a, b: product(a, b, jnp.bfloat16).sum(), argnums=(0, 1))
    jaxpr = jax.make_jaxpr(gradient)(a, b)
    dots = [e for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    # Whatever lies inside a call is the forward product.
    assert len(dots) >= 2
    assert {v.aval.dtype.name for e in dots for v in e.invars} == {"bfloat16"}
    assert {v.aval.dtype.name for e in dots for v in e.outvars} == {"float32"}


def test_gradients_have_the_dtype_of_their_inputs():
    a, b = jnp.ones((4, 8), jnp.bfloat16), jnp.ones((8, 3))
    gradient = jax.grad(lambda a, b: product(a, b, jnp.bfloat16).sum(), argnums=(0, 1))
    da, db = jax.eval_shape(gradient, a, b)
    assert (da.dtype, db.dtype) == (jnp.bfloat16, jnp.float32)


def test_hidden_keys_do_not_matter():
    x = normal((2, 5, 8))
    mask = jnp.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    attention = Attention(heads=2, dtype=jnp.float32)
    params = random_variables(attention, x)
    run = jax.jit(lambda x: attention.apply(params, x, Context(bias=key_bias(mask))))
    out, changed = run(x), run(x.at[0, 3:].set(7.0))
    np.testing.assert_array_equal(out[0, :3], changed[0, :3])


def test_causal_bias_hides_what_comes_later():
    bias = key_bias(jnp.ones((1, 3), bool), causal=True)
    np.testing.assert_array_equal(bias[0, 0] == 0, np.tril(np.ones((3, 3), bool)))


class Stacked(nn.Module):
    depth: int
    unroll: bool = False
    remat: str = "none"

    def setup(self):
        block = Block(plain(heads=2, mlp_width=8), dtype=jnp.float32)
        self.blocks = block

    def __call__(self, x):
        options = {"depth": self.depth, "unroll": self.unroll, "remat": self.remat}
        return run_stack(self.blocks, x, NOTHING, **options)


@pytest.fixture(scope="module")
def stack():
    x = normal((2, 5, 8))
    return x, random_variables(Stacked(3), x)


def test_stack_is_its_blocks_one_after_the_other(stack):
    x, variables = stack
    block = Block(plain(heads=2, mlp_width=8), dtype=jnp.float32)
    run, want = jax.jit(block.apply), x
    for i in range(3):
        own = jax.tree.map(lambda a, i=i: a[i], variables["params"]["blocks"])
        want = run({"params": own}, want)
    np.testing.assert_allclose(jax.jit(Stacked(3).apply)(variables, x), want, atol=1e-5)


@pytest.mark.parametrize("remat", ["blocks", "all_but_products"])
def test_unroll_and_remat_change_nothing(stack, remat):
    x, variables = stack

    def gradient(**options):
        run = jax.jit(jax.grad(lambda v: Stacked(3, **options).apply(v, x).sum()))
        return run.lower(variables).compile()(variables)

    plain, changed = gradient(), gradient(unroll=True, remat=remat)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(changed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("fully_compiled")
def test_more_remat_keeps_less_for_the_gradient(dtype):
    x = normal((16, 64, 32))

    class Wide(Stacked):
        def setup(self):
            block = Block(plain(heads=2, mlp_width=128), dtype=dtype)
            self.blocks = block

    variables = jax.eval_shape(Wide(4).init, jax.random.key(0), x)

    def temporary(remat):
        run = jax.jit(jax.grad(lambda v: Wide(4, remat=remat).apply(v, x).sum()))
        return run.lower(variables).compile().memory_analysis().temp_size_in_bytes

    whole, products, blocks = map(temporary, ("none", "all_but_products", "blocks"))
    assert blocks < 0.8 * products and products < 0.8 * whole


def test_unrolled_cost_analysis_counts_every_block(stack):
    x, variables = stack

    def flops(**options):
        run = jax.jit(Stacked(3, **options).apply).lower(variables, x)
        return run.compile().cost_analysis()["flops"]

    assert flops(unroll=True) > 2.5 * flops()


def test_an_interceptor_reaches_into_the_scanned_blocks(stack):
    x, variables = stack
    seen = set()

    def note(call, args, kwargs, context):
        seen.add("/".join(context.module.path))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(Stacked(3).apply, variables, x)
    assert {"blocks/norm1", "blocks/attention/query", "blocks/mlp/fc2"} <= seen
