"""The hook by which another library's products take the place of XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ape_jax.nn import matmul


@pytest.fixture
def calls(monkeypatch):
    """Shapes of the products that went to a plug-in, which takes those of at least 100 rows."""
    shapes = []

    def other(a, b, *, transpose_a=False, transpose_b=False):
        shapes.append((a.shape, b.shape, transpose_a, transpose_b))
        return jnp.matmul(a.T if transpose_a else a, b.T if transpose_b else b)

    monkeypatch.setattr(matmul, "_plug_in", None)
    matmul.register(matmul.PlugIn(takes=lambda n, k, m: n >= 100, matmul=other))
    return shapes


def arrays():
    rng = np.random.default_rng(0)
    return (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 60, 5), (5, 7)))


def test_products_go_to_the_plug_in_where_it_takes_them(calls):
    a, b = arrays()
    gradients = jax.grad(lambda a, b: matmul.product(a, b, jnp.float32).sum(), (0, 1))(a, b)
    # Both gradients come of products too; that of `b` has five rows and stays with XLA.
    assert calls == [((120, 5), (5, 7), False, False), ((120, 7), (5, 7), False, True)]
    np.testing.assert_allclose(gradients[1], np.outer(a.sum((0, 1)), np.ones(7)), rtol=1e-5)


def test_small_products_and_those_of_batches_stay_with_xla(calls):
    a, b = arrays()
    matmul.product(a[:1], b, jnp.float32)
    matmul.product(a, jnp.stack([b, b]), jnp.float32)
    assert not calls


def test_programs_for_elsewhere_keep_to_xla(calls):
    a, b = arrays()
    with matmul.xla_only():
        jax.jit(lambda: matmul.product(a, b, jnp.float32))()
    assert not calls
