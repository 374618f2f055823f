"""The structure term against NumPy in float64, on one and eight devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ape_jax.align import losses
from ape_jax.errors import UserError
from tests.align.losses import references
from tests.align.losses.references import STRUCTURE, differences, neighbours
from tests.align.losses.references import structure as reference

N, D, E = STRUCTURE


def make_mesh(count):
    return jax.make_mesh(
        (count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
    )


@pytest.fixture
def features():
    return references.features()


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("devices", [None, 8])
def test_value_and_gradient_equal_numpy_on_a_mesh(features, devices, levels):
    mesh = None if devices is None else make_mesh(devices)
    before, after = features
    if mesh is not None:
        before, after = jax.device_put((before, after), NamedSharding(mesh, P("data")))
    options = {"temperature": 0.2, "levels": levels, "mesh": mesh}
    program = jax.jit(jax.value_and_grad(lambda x: losses.structure(before, x, **options)))
    value, gradient = program(after)
    expected = reference(*features, 0.2, levels)
    assert expected > 0.01
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    places = [(0, 0), (7, 3), (20, 15), (47, 8)]
    by_hand = differences(lambda x: reference(features[0], x, 0.2, levels), features[1], places)
    ours = [gradient[place] for place in places]
    np.testing.assert_allclose(ours, by_hand, atol=1e-5 * np.abs(gradient).max())


def test_the_papers_temperature_equals_numpy(features):
    np.testing.assert_allclose(losses.structure(*features), reference(*features), rtol=1e-5)


def test_what_keeps_angles_keeps_the_structure(features):
    before, after = features
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(D, D)))
    lengths = np.linspace(0.5, 9, N)[:, None]
    turned = (lengths * before @ rotation).astype("f")
    assert float(losses.structure(before, turned)) < 1e-6 < float(losses.structure(before, after))


def test_an_offset_of_all_unit_vectors_is_taken_off():
    """Centring is what tells neighbours apart where all vectors lie in one narrow cone."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(N, D))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    far = np.concatenate([unit, np.full((N, 1), 5.0)], axis=1) / np.sqrt(26)
    spread = neighbours(far, 0.01).max(axis=1).mean()
    assert spread > 2 / N
    np.testing.assert_allclose(
        losses.structure(unit.astype("f"), far.astype("f"), temperature=0.01),
        reference(unit, far, 0.01),
        rtol=1e-4,
    )


def test_the_features_before_have_no_gradient(features):
    gradient = jax.grad(lambda x: losses.structure(x, features[1]))(jnp.asarray(features[0]))
    assert (np.asarray(gradient) == 0).all()


def test_equal_and_zero_rows_are_finite():
    zeros = jnp.zeros((4, 3))
    value, gradient = jax.value_and_grad(lambda x: losses.structure(jnp.eye(4), x))(zeros)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.eye(4), np.eye(3)), {}, "before has shape (4, 4) and after (3, 3)"),
        ((np.eye(4), np.ones(4)), {}, "after (4,)"),
        ((np.eye(4), np.eye(4)), {"temperature": 0.0}, "temperature: expected a number"),
        ((np.eye(4), np.eye(4)), {"levels": 0}, "levels: expected a whole number"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_arguments_that_cannot_be_are_one_sentence(arguments, options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        losses.structure(*arguments, **options)


def test_rows_that_do_not_divide_over_the_mesh_are_named(features):
    before, after = (x[:44] for x in features)
    with pytest.raises(UserError, match="44 rows"):
        losses.structure(before, after, mesh=make_mesh(8))
