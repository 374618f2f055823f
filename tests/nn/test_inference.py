"""What `inference=True` changes computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ape_jax.nn import inference, layers
from ape_jax.nn.attention import Context
from ape_jax.nn.blocks import Block, BlockConfig
from ape_jax.nn.layers import NormConfig


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_attention_by_head_equals_torch():
    query, key, value = (normal((2, 9, 24), seed) for seed in range(3))
    got = inference.attend_by_head(query, key, value, heads=3)

    def split(x):
        return torch.tensor(np.asarray(x)).reshape(2, 9, 3, 8).transpose(1, 2)

    want = torch.nn.functional.scaled_dot_product_attention(*map(split, (query, key, value)))
    np.testing.assert_allclose(got, want.transpose(1, 2).reshape(2, 9, 24), atol=1e-5)


def test_attention_by_head_survives_large_logits():
    x = 100 * normal((1, 5, 8))
    assert np.isfinite(inference.attend_by_head(x, x, x, heads=1)).all()


@pytest.mark.parametrize("bias_shape", [None, (1, 1, 1, 96), (6, 1, 1, 96)])
def test_slices_equal_the_whole_batch(bias_shape):
    x = normal((6, 96, 8))
    context = Context(bias=None if bias_shape is None else normal(bias_shape))
    config = BlockConfig(heads=2, mlp_width=8, norm=NormConfig(eps=1e-6))
    block = Block(config, dtype=jnp.float32)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x, context)
    variables = jax.tree.map(lambda s: normal(s.shape) / 4, shapes)
    got = block.apply(variables, x, context, method=inference.in_slices)
    assert inference.slice_rows(6, 96) == 3
    np.testing.assert_allclose(got, block.apply(variables, x, context), atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "length", "rows"), [(64, 257, 1), (64, 65, 4), (7, 65, 1), (6, 80, 3), (2, 10, 2)]
)
def test_slices_divide_the_batch_and_hold_few_tokens(batch, length, rows):
    assert inference.slice_rows(batch, length) == rows


def test_narrow_kernels_change_no_narrow_product():
    x, kernel = normal((3, 64)), normal((2, 64, 16))
    params = {"blocks": {"fc1": {"kernel": kernel, "bias": normal((2, 16))}}, "norm": kernel}
    narrow = inference.narrow_kernels(params, jnp.bfloat16)
    assert narrow["blocks"]["fc1"]["kernel"].dtype == layers.BITS
    assert narrow["blocks"]["fc1"]["bias"].dtype == narrow["norm"].dtype == jnp.float32
    dense = layers.Dense(16)
    for block in range(2):
        want, got = (
            dense.apply({"params": {k: v[block] for k, v in p["blocks"]["fc1"].items()}}, x)
            for p in (params, narrow)
        )
        np.testing.assert_array_equal(got, want)
    wide = inference.narrow_kernels(params, jnp.float32)
    assert wide["blocks"]["fc1"]["kernel"].dtype == jnp.float32


def test_no_kernel_of_the_stack_is_widened_to_be_cut_out_of_it():
    """XLA:CPU cuts bfloat16 out of a stack by way of float32, of all blocks in every call."""
    kernels = inference.narrow_kernels({"blocks": {"kernel": normal((3, 64, 64))}}, jnp.bfloat16)

    def body(x, kernel):
        return layers.Dense(64, use_bias=False).apply({"params": {"kernel": kernel}}, x), None

    run = jax.jit(lambda x, kernels: jax.lax.scan(body, x, kernels)[0])
    text = run.lower(normal((64, 64)), kernels["blocks"]["kernel"]).compile().as_text()
    assert "u16[3,64,64]" in text and "f32[3,64,64]" not in text and "bf16[3,64,64]" not in text
