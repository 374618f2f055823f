"""Rotary positions, grouped heads, reaches and kinds of blocks, against transformers' Qwen3."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.models.qwen3 import modeling_qwen3
from transformers.models.roformer.modeling_roformer import RoFormerSelfAttention

from ape_jax.nn.attention import Attention, Context, Rotation, key_bias, rotate
from ape_jax.nn.blocks import Block, BlockConfig
from ape_jax.nn.layers import NormConfig
from ape_jax.nn.positions import rotary_frequencies
from ape_jax.nn.stack import run_stack


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rotation(length, width, theta):
    angles = np.arange(length, dtype=np.float32)[None, :, None] * rotary_frequencies(width, theta)
    return Rotation(cos=jnp.cos(angles), sin=jnp.sin(angles))


def test_grouped_heads_with_norms_and_rotation_equal_qwen3():
    config = transformers.Qwen3Config(
        hidden_size=16, num_attention_heads=4, num_key_value_heads=2, head_dim=6, rope_theta=100.0
    )
    config._attn_implementation = "eager"
    layer = modeling_qwen3.Qwen3Attention(config, 0).eval()
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(torch.tensor(normal(parameter.shape, seed)) * 0.3 + 0.1)
    own = {n: np.asarray(p.detach()) for n, p in layer.named_parameters()}
    pairs = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "out"}
    params = {ours: {"kernel": own[f"{theirs}.weight"].T} for theirs, ours in pairs.items()}
    params |= {f"{n}_norm": {"scale": own[f"{n[0]}_norm.weight"]} for n in ("query", "key")}
    params = jax.tree.map(jnp.asarray, params)
    x = normal((2, 7, 16))
    turned = rotation(7, 6, 100.0)
    angles = [torch.tensor(np.tile(np.asarray(y), 2)) for y in (turned.cos, turned.sin)]
    causal = key_bias(jnp.ones((2, 7), bool), causal=True)
    mask = torch.tensor(np.array(causal))
    want, _ = layer(torch.tensor(x), tuple(angles), mask)
    attention = Attention(
        4,
        biases=(),
        kv_heads=2,
        head_width=6,
        qk_norm=NormConfig(eps=config.rms_norm_eps, kind="rms"),
        dtype=jnp.float32,
    )
    got = attention.apply({"params": params}, jnp.asarray(x), Context(bias=causal, rotation=turned))
    np.testing.assert_allclose(got, want.detach(), atol=1e-5)


def test_neighbours_are_turned_together_as_roformer_does():
    x, turned = normal((1, 5, 2, 8)), rotation(5, 8, 10000.0)
    table = torch.tensor(np.concatenate([turned.sin, turned.cos], axis=-1))[:, None]
    query = torch.tensor(x).transpose(1, 2)
    want, _ = RoFormerSelfAttention.apply_rotary_position_embeddings(table, query, query)
    got = rotate(jnp.asarray(x), turned, interleaved=True)
    np.testing.assert_allclose(got, want.transpose(1, 2), atol=1e-5)


def test_channels_beyond_the_rotation_stay_as_they_are():
    x = jnp.asarray(normal((1, 5, 2, 8)))
    got = rotate(x, rotation(5, 4, 10.0), interleaved=False)
    np.testing.assert_array_equal(got[..., 4:], x[..., 4:])
    assert (got[:, 1:, :, :4] != x[:, 1:, :, :4]).all()


@pytest.mark.parametrize(("causal", "low"), [(False, -2), (True, 0)])
def test_a_reach_hides_what_is_far_away(causal, low):
    bias = key_bias(jnp.ones((1, 6), bool), causal=causal, reach=2)
    distance = np.arange(6)[:, None] - np.arange(6)
    np.testing.assert_array_equal(bias[0, 0] == 0, (distance >= low) & (distance <= 2))


class Kinds(nn.Module):
    kinds: tuple[int, ...]

    def setup(self):
        config = BlockConfig(heads=2, mlp_width=8, norm=NormConfig(eps=1e-6))
        self.blocks = Block(config, dtype=jnp.float32)

    def __call__(self, x, contexts):
        return run_stack(self.blocks, x, contexts, depth=len(self.kinds), kinds=self.kinds)


def test_each_block_reads_the_context_of_its_kind():
    x, mask = jnp.asarray(normal((2, 6, 8))), jnp.ones((2, 6), bool)
    contexts = [Context(bias=key_bias(mask)), Context(bias=key_bias(mask, reach=1))]
    module = Kinds((1, 0, 1))
    variables = jax.tree.map(
        lambda s: jnp.asarray(normal(s.shape)) / 3,
        jax.eval_shape(module.init, jax.random.key(0), x, contexts),
    )
    want = x
    block = Block(BlockConfig(heads=2, mlp_width=8, norm=NormConfig(eps=1e-6)), dtype=jnp.float32)
    for i, kind in enumerate(module.kinds):
        own = jax.tree.map(lambda a, i=i: a[i], variables["params"]["blocks"])
        want = block.apply({"params": own}, want, contexts[kind])
    got = module.apply(variables, x, contexts)
    np.testing.assert_allclose(got, want, atol=1e-5)
    alike = Kinds((0, 0, 0)).apply(variables, x, contexts)
    assert np.abs(alike - want).max() > 1e-2


def test_a_block_whose_first_norm_rests_attends_to_the_stream_itself():
    x = jnp.asarray(normal((1, 4, 8)))
    config = BlockConfig(heads=2, mlp_width=8, norm=NormConfig(eps=1e-6))
    block = Block(config, dtype=jnp.float32)
    params = block.init(jax.random.key(0), x)["params"]
    params = {**params, "mlp": jax.tree.map(jnp.zeros_like, params["mlp"])}
    got = block.apply({"params": params}, x, Context(norm1=jnp.asarray(False)))
    want = x + Attention(2, dtype=jnp.float32).apply({"params": params["attention"]}, x)
    np.testing.assert_allclose(got, want, atol=1e-6)
    acts = block.apply({"params": params}, x, Context(norm1=jnp.asarray(True)))
    np.testing.assert_array_equal(acts, block.apply({"params": params}, x))
    assert np.abs(got - acts).max() > 1e-5


def test_inference_turns_queries_too():
    x = jnp.asarray(normal((2, 5, 8)))
    context = Context(rotation=rotation(5, 4, 10.0))
    attention = Attention(2, dtype=jnp.float32)
    variables = attention.init(jax.random.key(0), x)
    fast = attention.clone(inference=True).apply(variables, x, context)
    np.testing.assert_allclose(fast, attention.apply(variables, x, context), atol=1e-5)
