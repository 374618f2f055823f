"""The side loss on subwords against torch, on one and eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ape_jax.align import losses
from ape_jax.errors import UserError
from tests.align.losses import references
from tests.align.losses.references import SUBWORDS, subwords_by_torch

N, C = SUBWORDS


@pytest.fixture
def rows():
    return references.subword_rows()


@pytest.mark.parametrize("devices", [None, 1, 8])
def test_value_and_gradient_equal_torch_on_a_mesh(rows, devices):
    mesh, placed = None, rows
    if devices is not None:
        here = jax.devices()[:devices]
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=here)
        placed = jax.device_put(rows, NamedSharding(mesh, P("data")))
    program = jax.jit(jax.value_and_grad(lambda x, t: losses.subwords(x, t, mesh=mesh)))
    value, gradient = program(*placed)
    expected, by_torch = subwords_by_torch(*rows)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, by_torch, atol=1e-5 * np.abs(by_torch).max())


def test_factors_of_a_bag_do_not_matter(rows):
    logits, targets = rows
    lengths = np.linspace(0.5, 9, N, dtype="f")[:, None]
    np.testing.assert_allclose(
        losses.subwords(logits, lengths * targets), losses.subwords(logits, targets), rtol=1e-6
    )


def test_there_is_no_gradient_with_respect_to_the_bags(rows):
    logits, targets = map(jnp.asarray, rows)
    assert not jax.grad(lambda t: losses.subwords(logits, t))(targets).any()


def test_large_logits_stay_finite(rows):
    assert np.isfinite(losses.subwords(1e4 * rows[0], rows[1]))


@pytest.mark.parametrize(
    ("logits", "targets", "words"),
    [
        (np.ones((4, 3)), np.ones((4, 2)), r"logits has shape \(4, 3\) and targets \(4, 2\)"),
        (np.ones(4), np.ones(4), r"they must be \[n, c\], both the same"),
        ("x", np.ones((4, 3)), "logits"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named(logits, targets, words):
    with pytest.raises(UserError, match=words):
        losses.subwords(logits, targets)
