"""Packed captions are the padded ones for less work: forward, gradient, over devices."""

import functools
import re

import hypothesis
import jax
import jax.numpy as jnp
import jax.test_util
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from ape_jax.align import heads
from ape_jax.align.packing import Packed, segment_mean
from ape_jax.config.poolings import MODES
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.towers.tower import pool
from tests import compiling
from tests.align import packed_heads
from tests.align.packed_heads import LENGTHS, TOWER, WIDTH, both_forms, padded_input


def close(a, b, rtol=2e-6):
    # A key's bias has no gradient but for rounding, so leaves are not measured by themselves alone.
    least = 1e-3 * max((np.abs(y).max() for y in jax.tree.leaves(b)), default=0)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * max(np.abs(y).max(), least))


@functools.cache
def pooling_program(pooling):
    """Both forms pooled, compiled once for each shape."""
    return jax.jit(lambda packed, padded: (packed.pool(pooling), pool(*padded, pooling, TOWER)))


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
    st.sampled_from([1, 7, 12]).flatmap(
        lambda n: st.lists(st.integers(1, 9), min_size=n, max_size=n)
    ),
    st.sampled_from([*MODES, "cls+mean", "weightedmean+last+max"]),
)
def test_every_pooling_equals_that_of_padded_captions(lengths, pooling):
    # Of the 128 places as many are spare as there happen to be.
    packed, (tokens, mask, _) = both_forms(lengths, spare=128 - sum(lengths), length=11)
    close(*pooling_program(pooling)(packed, (tokens, mask)))


@jax.jit
def gradients_of_the_mean(packed, tokens, mask, weight):
    """By the packed and by the padded tokens."""
    got = jax.grad(lambda p: (p.pool("mean") * weight).sum(), allow_int=True)(packed).tokens
    return got, jax.grad(lambda t: (pool(t, mask, "mean", TOWER) * weight).sum())(tokens)


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.sampled_from([1, 2, 4]))
def test_gradient_of_the_mean_equals_that_of_the_padded_mean(lengths, groups):
    per_group = len(lengths) // groups
    parts = [lengths[i : i + per_group] for i in range(0, len(lengths), per_group)]
    spare = 40 // groups - max(map(sum, parts))
    packed, (tokens, mask, _) = both_forms(lengths, groups, spare, length=11)
    weight = np.random.default_rng(1).normal(size=(len(lengths), 12)).astype(np.float32)
    got, want = gradients_of_the_mean(packed, tokens, mask, weight)
    for group, part in enumerate(parts):
        rows = slice(group * per_group, (group + 1) * per_group)
        close(got[group, : sum(part)], np.asarray(want)[rows][mask[rows]])
        assert not np.any(got[group, sum(part) :])


def test_segments_name_the_caption_of_each_token_and_the_padding():
    packed = Packed(jnp.zeros((2, 5, 1)), jnp.array([[2, 1], [1, 4]]))
    np.testing.assert_array_equal(packed.segments(), [[0, 0, 1, 2, 2], [0, 1, 1, 1, 1]])


def test_a_caption_without_tokens_pools_to_zero_and_moves_no_other():
    packed = Packed(jnp.array([[[1.0], [3.0], [8.0], [0.0]]]), jnp.array([[0, 2, 0, 1, 0]]))
    np.testing.assert_array_equal(packed.pool("mean")[:, 0], [0, 2, 0, 8, 0])
    np.testing.assert_array_equal(packed.pool("cls")[:, 0], [0, 1, 0, 8, 0])
    np.testing.assert_array_equal(packed.pool("last")[:, 0], [0, 3, 0, 8, 0])
    np.testing.assert_array_equal(packed.pool("max")[:, 0], [0, 3, 0, 8, 0])
    assert np.isfinite(packed.pool("mean_sqrt_len+weightedmean")).all()


def test_an_unknown_pooling_is_an_error():
    with pytest.raises(ValueError, match="'map'"):
        both_forms([1, 2])[0].pool("map")


def test_padding_is_not_read():
    packed, _ = both_forms(LENGTHS)
    noisy = packed.replace(tokens=packed.tokens.at[:, sum(LENGTHS) :].set(1e30))
    for pooling in MODES:
        np.testing.assert_array_equal(noisy.pool(pooling), packed.pool(pooling))


HEADS = packed_heads.heads_on(WIDTH)


@functools.cache
def program(name):
    """What a head gives and a gradient of it, compiled once for each form."""
    # Attention to single tokens has no gradient but for rounding; as users have it compiled, none.
    options = compiling.USUAL if name == "attention pool" else None
    return jax.jit(packed_heads.gradient(HEADS[name]), compiler_options=options)


@functools.cache
def parameters(name):
    """Fresh ones of a head, which no shape of captions changes."""
    text = padded_input(both_forms(LENGTHS)[1])
    return jax.jit(lambda text: HEADS[name].init(jax.random.key(0), text))(text)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("groups", [1, 8])
def test_heads_give_the_same_on_packed_captions_forward_and_backward(name, groups):
    packed, padded = both_forms(LENGTHS, groups)
    packed_grads, packed_z = program(name)(parameters(name), heads.TextInput(packed=packed))
    padded_grads, padded_z = program(name)(parameters(name), padded_input(padded))
    assert packed_z.shape == (8, 12 if name == "identity" else 8)
    close(packed_z, padded_z)
    close(packed_grads, padded_grads, rtol=5e-6)


@pytest.mark.parametrize("name", HEADS)
@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(st.lists(st.integers(1, 9), min_size=4, max_size=4))
def test_any_captions_are_the_same_packed(name, lengths):
    # The same shapes whatever is drawn: groups of two captions in 24 places, frames of 12.
    spare = 24 - max(sum(lengths[:2]), sum(lengths[2:]))
    packed, padded = both_forms(lengths, 2, spare, length=12)
    forms = heads.TextInput(packed=packed), padded_input(padded)
    found = (program(name)(parameters(name), text) for text in forms)
    close(*found, rtol=1e-5)


def test_framing_is_undone():
    packed, (tokens, mask, _) = both_forms(LENGTHS, 2)
    longest = packed.token_index.shape[2]
    np.testing.assert_array_equal(packed.padded(), tokens[:, :longest])
    np.testing.assert_array_equal(packed.padded_mask(), mask[:, :longest])
    np.testing.assert_array_equal(packed.pack(packed.padded()), packed.tokens)


@pytest.mark.parametrize("name", ["transformer", "lookup"])
def test_what_a_head_wants_beside_tokens_is_not_guessed(name):
    packed, _ = both_forms(LENGTHS)
    with pytest.raises(ValueError, match="needs the"):
        text = heads.TextInput(packed=packed.replace(ids=None, token_index=None))
        HEADS[name].apply(parameters(name), text)


def test_tokens_stored_in_bfloat16_are_computed_in_the_heads_type():
    packed, (tokens, mask, _) = both_forms(LENGTHS, dtype=ml_dtypes.bfloat16)
    assert packed.tokens.dtype == jnp.bfloat16
    head = HEADS["mlp"]
    padded = heads.TextInput(tokens=jnp.asarray(tokens, jnp.float32), mask=jnp.asarray(mask))
    params = head.init(jax.random.key(0), padded)
    z = head.apply(params, heads.TextInput(packed=packed))
    assert z.dtype == jnp.float32
    close(z, head.apply(params, padded))


def test_dropout_is_keyed_and_only_in_training():
    text = heads.TextInput(packed=both_forms(LENGTHS)[0])
    head = heads.TokenMLP(8, TOWER, width=16, dropout=0.5, dtype=jnp.float32)
    params = head.init(jax.random.key(0), text)

    def drop(seed):
        return head.apply(params, text, train=True, rngs={"dropout": jax.random.key(seed)})

    np.testing.assert_array_equal(drop(1), drop(1))
    assert np.abs(drop(1) - drop(2)).max() > 1e-3
    assert np.abs(drop(1) - head.apply(params, text)).max() > 1e-3


COLLECTIVES = re.compile(r"all-(reduce|gather|to-all)|reduce-scatter|collective-permute")


def on_eight_devices(name, packed):
    mesh = mesh_lib.make_mesh()
    params = mesh_lib.place_replicated(parameters(name), mesh)
    return mesh, params, mesh_lib.place_batch(heads.TextInput(packed=packed), mesh)


@pytest.mark.parametrize("name", HEADS)
def test_groups_on_eight_devices_never_talk_to_each_other(name):
    head, (packed, padded) = HEADS[name], both_forms(LENGTHS, 8)
    mesh, params, placed = on_eight_devices(name, packed)
    compiled = jax.jit(head.apply).lower(params, placed).compile()
    assert not COLLECTIVES.search(compiled.as_text())
    z = compiled(params, placed)
    assert z.sharding.is_equivalent_to(mesh_lib.over_batch(mesh), 2)
    close(z, jax.jit(head.apply)(parameters(name), padded_input(padded)))


def test_the_gradient_on_eight_devices_gathers_no_tokens():
    head, (packed, _) = HEADS["mlp"], both_forms(LENGTHS, 8)
    _, params, placed = on_eight_devices("mlp", packed)

    def loss(params, text):
        return (head.apply(params, text) ** 2).sum()

    compiled = jax.jit(jax.grad(loss)).lower(params, placed).compile()
    # What the parameters' gradient needs: sums over the devices, and nothing else.
    assert {match[0] for match in COLLECTIVES.finditer(compiled.as_text())} == {"all-reduce"}
    expected = jax.jit(jax.grad(loss))(parameters("mlp"), heads.TextInput(packed=packed))
    close(compiled(params, placed), expected, rtol=5e-6)


def test_segment_mean_has_the_derivative_of_a_mean():
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 3)), jnp.float32)
    lengths = jnp.array([[4, 0, 3], [1, 2, 6]])
    jax.test_util.check_grads(
        lambda t: segment_mean(jnp.asarray(t), lengths), (tokens,), 1, modes=["rev"]
    )
