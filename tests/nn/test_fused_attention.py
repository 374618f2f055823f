"""Attention by cuDNN: when, and that it is the same attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax.nn import fused_attention
from ape_jax.nn.attention import Attention, Context, key_bias

WIDTH, HEADS = 64, 4


@pytest.fixture
def calls(monkeypatch):
    """Calls of jax's function, which is its own implementation of it: that needs no GPU."""
    found, real = [], jax.nn.dot_product_attention

    def counted(*args, **more):
        found.append(more)
        return real(*args, **more)

    monkeypatch.setattr(fused_attention, "IMPLEMENTATION", "xla")
    monkeypatch.setattr(jax.nn, "dot_product_attention", counted)
    return found


def output(allow, context=None, dtype=jnp.bfloat16, length=9, **options):
    layer = Attention(HEADS, dtype=dtype, **options)
    x = jax.random.normal(jax.random.key(0), (3, length, WIDTH))
    params = layer.init(jax.random.key(1), x)
    # Small weights would attend to all alike.
    params = jax.tree.map(lambda p: 10 * p, params)
    with fused_attention.allowed(allow):
        return layer.apply(params, x, context or Context())


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2}, {"scale": 0.3}, {"head_width": 8}])
def test_it_is_the_attention_that_it_stands_for(calls, options):
    plain, before = output(False, **options), len(calls)
    fused = output(True, **options)
    assert (before, len(calls)) == (0, 1)
    assert np.linalg.norm(fused - plain) / np.linalg.norm(plain) < 1e-2


@pytest.mark.parametrize(
    ("context", "options"),
    [
        (Context(bias=key_bias(jnp.ones((3, 9), bool))), {}),
        (None, {"dtype": jnp.float32}),
        (None, {"head_width": 12}),
        (None, {"head_width": 256}),
        (None, {"length": 1}),
    ],
)
def test_what_it_does_not_take_stays_as_it_is_bit_for_bit(calls, context, options):
    fused, plain = (output(allow, context, **options) for allow in (True, False))
    assert not calls
    np.testing.assert_array_equal(fused, plain)


def test_it_is_tried_before_it_is_used(monkeypatch):
    """Here cuDNN's is refused by jax itself, and its own is right."""
    fused_attention.refusal.cache_clear()
    assert "cudnn" in fused_attention.refusal().lower()
    monkeypatch.setattr(fused_attention, "IMPLEMENTATION", "xla")
    fused_attention.refusal.cache_clear()
    assert fused_attention.refusal() == ""
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda x, *_, **more: 2 * x)
    fused_attention.refusal.cache_clear()
    assert fused_attention.refusal() == "its result is wrong"
    fused_attention.refusal.cache_clear()


def test_a_processor_has_none():
    assert not fused_attention.available(jax.devices())


@pytest.mark.parametrize(
    ("platform", "version", "chosen", "expected"),
    [
        ("gpu", "PJRT C API\ncuda 13000", "", True),
        ("gpu", "PJRT C API\nrocm 60000", "", False),
        ("tpu", "PJRT C API\ntpu", "", False),
        ("gpu", "PJRT C API\ncuda 13000", "xla", False),
    ],
)
def test_nvidia_s_gpus_have_it_unless_it_is_left_out(
    monkeypatch, unchecked, platform, version, chosen, expected
):
    class Device:
        client = type("Client", (), {"platform_version": version})

    Device.platform = platform
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setenv(fused_attention.VARIABLE, chosen)
    assert fused_attention.available([Device(), Device()]) is expected
