"""The ring's losses against their definitions in float64: any mesh, tile, mask and batch."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ape_jax.align import losses
from ape_jax.align.losses import ring

SCALARS = {"softmax": (12.0,), "sigmoid": (20.0, -8.0)}
MESHES = (None, (1,), (2,), (8,), (2, 4))
BOTH = pytest.mark.parametrize("name", ["softmax", "sigmoid"])


def make_mesh(shape):
    if shape is None:
        return None
    axes = ("data", "fsdp")[: len(shape)]
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * len(shape), devices=devices)


def arguments(name, batch, seed=0, width=16):
    rng = np.random.default_rng(seed)
    zimg = rng.normal(size=(batch, width))
    ztxt = zimg + rng.normal(size=(batch, width))
    unit = ((z / np.linalg.norm(z, axis=1, keepdims=True)).astype("f") for z in (zimg, ztxt))
    return (*unit, *(np.float32(s) for s in SCALARS[name]))


def value_and_gradients(loss, name):
    return jax.jit(jax.value_and_grad(loss, argnums=tuple(range(2 + len(SCALARS[name])))))


def by_ring(name, args, mesh, monkeypatch, tile, **options):
    with monkeypatch.context() as patch:
        patch.setattr(ring, "Ring", functools.partial(ring.Ring, tile=tile))
        loss = functools.partial(getattr(losses, name), mesh=mesh, impl="ring", **options)
        return value_and_gradients(loss, name)(*args)


def exactly(name, args, **options):
    with jax.enable_x64(True):
        loss = functools.partial(getattr(losses, f"{name}_reference"), **options)
        return value_and_gradients(loss, name)(*(np.float64(a) for a in args))


def assert_close(ours, theirs, value=1e-6, gradient=1e-5):
    """The derivative by the scale is a difference of sums about as large as the loss by scale."""
    (a, a_grads), (b, b_grads) = jax.device_get((ours, theirs))
    assert abs(a - b) <= value * abs(b)
    least = (0, 0, 1e-2 * abs(b), 0)
    for x, y, floor in zip(a_grads, b_grads, least):
        assert x.shape == y.shape
        assert np.abs(np.float64(x) - y).max() <= gradient * max(np.abs(y).max(), floor)


@BOTH
@pytest.mark.parametrize("shape", MESHES, ids=str)
@pytest.mark.parametrize("tile", [ring.TILE, 5], ids=["one tile", "tiles that do not divide"])
def test_value_and_every_gradient_equal_the_reference(name, shape, tile, monkeypatch):
    args = arguments(name, 104)
    ids = np.arange(104, dtype=np.int32) * 7 % 20
    for options in ({}, {"ids": ids}):
        ours = by_ring(name, args, make_mesh(shape), monkeypatch, tile, **options)
        assert_close(ours, exactly(name, args, **options))


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 9),
    st.sampled_from(MESHES),
    st.sampled_from(["none", "shared", "columns", "texts"]),
    st.sampled_from([1, 2]),
    st.sampled_from([0.0, 0.2]),
    st.integers(0, 99),
)
def test_any_mask_batch_and_tile(rows, tile, shape, kind, groups, smoothing, seed):
    batch = rows * 8
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, max(batch // 2, 2), size=(2, batch, 2)).astype(np.int32)
    masks = {
        "none": {},
        "shared": {"ids": ids[0, :, 0]},
        "columns": {"ids": ids[0]},
        "texts": {"ids": ids[0], "text_ids": ids[1]},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, extra in (("softmax", {"smoothing": smoothing}), ("sigmoid", {})):
            args = arguments(name, batch, seed)
            options = {**masks[kind], "groups": groups, **extra}
            ours = by_ring(name, args, make_mesh(shape), patch, tile, **options)
            assert_close(ours, exactly(name, args, **options))


@BOTH
def test_all_meshes_agree_beyond_one_tile_a_device(name, monkeypatch):
    args = arguments(name, 1000, width=32)
    expected = exactly(name, args)
    for shape, tile in itertools.product((None, (8,)), (64, 1024)):
        assert_close(by_ring(name, args, make_mesh(shape), monkeypatch, tile), expected)


@BOTH
def test_gradients_come_back_sharded_by_rows(name, monkeypatch):
    mesh = make_mesh((2, 4))
    by_rows = NamedSharding(mesh, P(mesh.axis_names))
    zimg, ztxt, *scalars = arguments(name, 48)
    placed = (*jax.device_put((zimg, ztxt), by_rows), *scalars)
    _, gradients = by_ring(name, placed, mesh, monkeypatch, ring.TILE)
    for gradient in gradients[:2]:
        assert gradient.sharding.is_equivalent_to(by_rows, ndim=2)


@BOTH
def test_without_negatives_it_is_finite(name, monkeypatch):
    for shape, tile in ((None, 3), ((8,), ring.TILE)):
        ids = np.zeros(8, np.int32)
        args = arguments(name, 8)
        result = by_ring(name, args, make_mesh(shape), monkeypatch, tile, ids=ids)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(result))
        if name == "softmax":
            assert not any(np.any(x) for x in jax.tree.leaves(result))


@BOTH
def test_large_scales_do_not_overflow(name, monkeypatch):
    zimg, ztxt, _, *bias = arguments(name, 48)
    for scale in (1.0, 100.0, 1e4):
        args = (zimg, ztxt, np.float32(scale), *bias)
        result = by_ring(name, args, make_mesh((8,)), monkeypatch, 5)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(result))


@BOTH
def test_bfloat16_embeddings_are_accumulated_in_float32(name, monkeypatch):
    zimg, ztxt, *scalars = arguments(name, 48)
    args = (zimg.astype(jnp.bfloat16), ztxt.astype(jnp.bfloat16), *scalars)
    value, gradients = by_ring(name, args, make_mesh((8,)), monkeypatch, 5)
    assert value.dtype == jnp.float32 and gradients[0].dtype == jnp.bfloat16
    assert_close((value, gradients), exactly(name, args), gradient=1e-2)


def compiled(name, batch, width):
    mesh = make_mesh((8,))
    by_rows = NamedSharding(mesh, P("data"))
    z = jax.ShapeDtypeStruct((batch, width), jnp.float32, sharding=by_rows)
    ids = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=by_rows)
    scalars = (jax.ShapeDtypeStruct((), jnp.float32),) * len(SCALARS[name])

    def loss(*args):
        return getattr(losses, name)(*args[:-1], ids=args[-1], mesh=mesh, impl="ring")

    return value_and_gradients(loss, name).lower(z, z, *scalars, ids).compile()


@BOTH
@pytest.mark.usefixtures("fully_compiled")
def test_memory_stays_under_sixty_mebibytes_a_device(name):
    """At a global batch of 16,384, 512 wide, on 8 devices; a dense one takes 416."""
    executable = compiled(name, 16_384, 512)
    assert executable.memory_analysis().temp_size_in_bytes < 60 << 20
    assert not re.search(r"\[(16384|2048),16384\]", executable.as_text())


@BOTH
@pytest.mark.usefixtures("fully_compiled")
def test_memory_grows_at_most_in_proportion_to_the_batch(name):
    small, large = (
        compiled(name, batch, 512).memory_analysis().temp_size_in_bytes
        for batch in (16_384, 131_072)
    )
    assert large <= 8 * small


@pytest.mark.parametrize(("name", "products"), [("softmax", 4), ("sigmoid", 3)])
def test_products_of_tiles_in_all(name, products):
    """One tile a device, so that the compiler's count has no loop but the ring's to count once."""
    batch, width = 8 * 512, 512
    assert compiled(name, batch, width).as_text().count(" dot(") == products


def test_auto_takes_the_ring_where_the_matrix_is_large():
    one, eight = make_mesh((1,)), make_mesh((8,))
    assert losses.chosen("auto", 4096, one) == losses.chosen("auto", 4096, None) == "dense"
    assert losses.chosen("auto", 8192, one) == "ring"
    assert losses.chosen("auto", 8192, eight) == "dense"
    assert losses.chosen("auto", 16_384, eight) == "ring"
    assert losses.chosen("dense", 16_384, one) == "dense"


@pytest.mark.parametrize(
    ("platform", "tile"), [("cpu", ring.TILE), ("tpu", ring.TILE), ("gpu", ring.TILE_OF_GPUS)]
)
def test_tiles_are_larger_on_gpus_where_each_is_many_kernels(monkeypatch, platform, tile):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert ring.Ring(mesh=None, own_texts=False, group=0).longest_tile == tile
    assert ring.Ring(mesh=None, own_texts=False, group=0, tile=5).longest_tile == 5
