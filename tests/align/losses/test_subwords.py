"""The side loss on subwords against torch, on one and eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ape_jax.align import losses
from ape_jax.errors import UserError

N, C = 48, 37


@pytest.fixture
def rows(rng):
    """Logits, and bags of which the last is empty."""
    targets = rng.uniform(0.1, 5, (N, C)) * (rng.random((N, C)) < 0.2)
    targets[:, 3], targets[-1] = 0.7, 0
    return rng.normal(0, 3, (N, C)).astype("f"), targets.astype("f")


def reference(logits, targets):
    """The loss and its gradient by torch in float64."""
    x = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    shares = torch.nn.functional.normalize(torch.tensor(targets, dtype=torch.float64), p=1, dim=1)
    loss = -(torch.log_softmax(x, dim=1) * shares).sum(dim=1).mean()
    loss.backward()
    return float(loss.detach()), x.grad.numpy()


@pytest.mark.parametrize("devices", [None, 1, 8])
def test_value_and_gradient_equal_torch_on_a_mesh(rows, devices):
    mesh, placed = None, rows
    if devices is not None:
        here = jax.devices()[:devices]
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=here)
        placed = jax.device_put(rows, NamedSharding(mesh, P("data")))
    program = jax.jit(jax.value_and_grad(lambda x, t: losses.subwords(x, t, mesh=mesh)))
    value, gradient = program(*placed)
    expected, by_torch = reference(*rows)
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
