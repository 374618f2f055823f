"""Products and arrays of traced programs, against counts made by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from ape_jax.align import losses
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner import traced

A, B = jnp.zeros((8, 16)), jnp.zeros((16, 4))
ONE = 2 * 8 * 16 * 4


def products(fn, *args):
    return traced.count(jax.jit(fn).trace(*args).jaxpr)


def test_a_product_and_its_gradients():
    assert products(jnp.dot, A, B).flops == ONE
    both = jax.value_and_grad(lambda a, b: (a @ b).sum(), argnums=(0, 1))
    assert products(both, A, B).flops == 3 * ONE


@pytest.mark.parametrize(("wanted", "count"), [((0, 1), 4), ((1,), 3)])
def test_gradients_that_nobody_takes_are_not_counted(wanted, count):
    z, scale, mesh = jnp.zeros((64, 16)), jnp.float32(1.0), mesh_lib.make_mesh()

    def loss(zimg, ztxt):
        return losses.softmax(zimg, ztxt, scale, mesh=mesh, impl="ring")

    def steps(n, zimg, ztxt):  # As in the loop of a run.
        def step(_, z):
            return z + sum(jax.grad(loss, argnums=wanted)(zimg, z))

        return jax.lax.fori_loop(0, n, step, ztxt)

    assert products(steps, jnp.int32(3), z, z).flops == count * 2 * 64 * 64 * 16


def test_batched_products_and_convolutions():
    assert products(jnp.matmul, jnp.zeros((5, 8, 16)), jnp.zeros((5, 16, 4))).flops == 5 * ONE

    def patches(image, kernel):
        return jax.lax.conv_general_dilated(
            image, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    found = products(patches, jnp.zeros((2, 8, 8, 3)), jnp.zeros((4, 4, 3, 7)))
    assert found.flops == 2 * (2 * 2 * 2 * 7) * (4 * 4 * 3)


def test_a_loop_counts_as_often_as_it_runs():
    def scanned(x):
        return jax.lax.scan(lambda c, _: (c @ B @ B.T, None), x, None, length=6)[0]

    assert products(scanned, A).flops == 6 * 2 * ONE
    assert products(lambda x: jax.lax.fori_loop(0, 5, lambda i, c: c @ B @ B.T, x), A).flops == (
        5 * 2 * ONE
    )


def test_a_loop_of_unknown_length_counts_once_and_is_said_to():
    found = products(
        lambda n, x: jax.lax.fori_loop(0, n, lambda i, c: c @ B @ B.T, x), jnp.int32(3), A
    )
    assert (found.flops, found.unknown) == (2 * ONE, 1)


def test_what_every_device_does_is_counted_for_all():
    mesh = mesh_lib.make_mesh()
    spread = jax.shard_map(lambda a: a @ B, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    assert products(spread, A).flops == ONE


@pytest.mark.parametrize(
    ("dtype", "precision", "exact"),
    [("float32", "highest", 1), ("float32", None, 0), ("bfloat16", "highest", 0)],
)
def test_exact_products_are_counted_apart(dtype, precision, exact):
    a, b = A.astype(dtype), B.astype(dtype)
    found = products(lambda x, y: jnp.matmul(x, y, precision=precision), a, b)
    assert found.exact == exact * found.flops


def test_the_largest_arrays_are_named_and_shared_out():
    def fn(x):
        with jax.named_scope("here"):
            return (x @ x.T).sum()

    (name, size), *_ = traced.largest(jax.jit(fn).trace(jnp.zeros((64, 2))).jaxpr, devices=4)
    assert name == "here/dot_general" and size == 64 * 64 * 4 / 4
