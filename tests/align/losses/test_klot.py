"""KLOT against NumPy in float64, finite differences and autodiff, on one and on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ape_jax.align import losses
from ape_jax.align.losses import klot_loss
from ape_jax.errors import UserError
from tests.align.losses.references import KLOT_IMAGES as N
from tests.align.losses.references import KLOT_TEXTS as M
from tests.align.losses.references import klot as reference
from tests.align.losses.references import similarities


def close(ours, theirs, tolerance):
    ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("devices", [None, 1, 8])
def test_value_and_gradient_equal_numpy_on_any_number_of_devices(devices):
    student, teacher = similarities(0), similarities(1)
    mesh, args = None, (jnp.asarray(student), jnp.asarray(teacher))
    if devices:
        auto = (AxisType.Auto,)
        mesh = jax.make_mesh((devices,), ("d",), axis_types=auto, devices=jax.devices()[:devices])
        args = jax.device_put(args, NamedSharding(mesh, P("d")))
    value, gradient = jax.jit(jax.value_and_grad(lambda s, t: losses.klot(s, t, mesh=mesh)))(*args)
    expected = reference(student, teacher)
    assert value.dtype == gradient.dtype == jnp.float32
    close(value, expected[0], 1e-5)
    close(gradient, expected[1], 1e-5)


@pytest.mark.parametrize("iterations", [1, 7])
def test_other_numbers_are_used(iterations):
    student, teacher = similarities(0), similarities(1)
    how = {"eps": 0.2, "teacher_eps": 0.1, "iterations": iterations}
    close(losses.klot(student, teacher, **how), reference(student, teacher, **how)[0], 1e-5)


def test_gradient_equals_finite_differences_in_float64():
    with jax.enable_x64(True):
        student, teacher = (jnp.asarray(similarities(k), jnp.float64) for k in (0, 1))

        def value(x):
            return losses.klot(x, teacher, eps=0.2, teacher_eps=0.1, iterations=300)

        gradient, step = jax.grad(value)(student), 1e-5
        for place in [(0, 0), (3, 7), (N - 1, M - 1)]:
            moved = [value(student.at[place].add(sign * step)) for sign in (1, -1)]
            found = (float(moved[0]) - float(moved[1])) / (2 * step)
            assert abs(found - float(gradient[place])) < 1e-8


def test_gradient_equals_autodiff_through_a_long_sinkhorn():
    with jax.enable_x64(True):
        student, teacher = (jnp.asarray(similarities(k), jnp.float64) for k in (0, 1))
        target = losses.transport_plan(teacher, eps=0.05, iterations=2000)
        # Autodiff compares with what the derivative takes for granted: marginals that are met.
        assert np.abs(np.exp(target).sum(1) * N - 1).max() < 1e-6

        def value(x):  # Differentiated through all of its iterations.
            def iterate(_, u_v):
                u = -jnp.log(N) - jax.nn.logsumexp(x / 0.1 + u_v[1], axis=1)
                return u, -jnp.log(M) - jax.nn.logsumexp(x / 0.1 + u[:, None], axis=0)

            zero = jnp.zeros(N, jnp.float64), jnp.zeros(M, jnp.float64)
            u, v = jax.lax.scan(lambda c, _: (iterate(0, c), None), zero, length=500)[0]
            return (jnp.exp(target) * (target - (x / 0.1 + u[:, None] + v))).sum()

        how = {"eps": 0.1, "teacher_eps": 0.05, "iterations": 2000}
        ours = jax.grad(lambda x: losses.klot(x, teacher, **how))(student)
        close(ours, jax.grad(value)(student), 1e-6)


def test_nothing_is_kept_of_the_iterations_and_the_teacher_has_no_gradient():
    student, teacher = similarities(0), similarities(1)
    assert not np.any(jax.grad(losses.klot, argnums=1)(jnp.asarray(student), jnp.asarray(teacher)))
    out, saved = klot_loss._forward(student, losses.transport_plan(teacher, eps=0.1), 0.1, 50, None)
    assert out.shape == () and saved.shape == (N, M)


def test_plan_has_uniform_marginals():
    found = np.exp(losses.transport_plan(similarities(2), eps=0.05, iterations=500))
    close(found.sum(axis=1), np.full(N, 1 / N), 1e-4)
    close(found.sum(axis=0), np.full(M, 1 / M), 1e-4)


def test_similarities_in_bf16_give_a_gradient_in_bf16_of_f32_plans():
    student, teacher = similarities(0), similarities(1)
    value, gradient = jax.value_and_grad(losses.klot)(jnp.asarray(student, jnp.bfloat16), teacher)
    assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"eps": 0.0}, "eps"),
        ({"teacher_eps": -1.0}, "teacher_eps"),
        ({"iterations": 0}, "iterations"),
        ({"teacher": np.zeros((3, 3), "f")}, "both must be"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(wrong, words):
    given = {"student": similarities(0), "teacher": similarities(1)} | wrong
    with pytest.raises(UserError, match=words):
        losses.klot(**given)
