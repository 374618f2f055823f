"""KLOT: the optimal-transport plan of a student follows that of a teacher, without pairs."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ape_jax import arguments
from ape_jax.align.losses.contrastive import by_rows, check_mesh, checked_array
from ape_jax.errors import UserError, whole_number

Similarities = Float[Array | np.ndarray, "n m"]


def klot(
    student: Similarities,
    teacher: Similarities,
    *,
    eps: float = 0.05,
    teacher_eps: float = 0.005,
    iterations: int = 100,
    mesh: Mesh | None = None,
) -> Float[Array, ""]:
    """Computes KL(P* || P) of the transport plans P* of a teacher and P of a student.

    A plan says which texts each image goes with, and how much: of all matrices whose rows sum to
    1 / n and whose columns sum to 1 / m, it is the one that maximises the sum of plan times
    similarities plus `eps` times its entropy. No image needs to be the partner of a text: the loss
    asks that the student's plan of a batch is that of the teacher.

    The gradient with respect to the student's similarities is (P - P*) / eps, exact for plans that
    have converged, so nothing is differentiated through the iterations and none of them is kept.
    The teacher has no gradient.

    Example:
      >>> import jax.numpy as jnp
      >>> teacher, student = jnp.eye(3), jnp.eye(3)[::-1]
      >>> float(klot(teacher, teacher, teacher_eps=0.05)) < 1e-6
      True
      >>> round(float(klot(student, teacher)), 1)
      13.3

    Args:
      student: similarities of n images with m texts, such as cosines; f32 or bf16 [n, m]. On a mesh
        the array may be sharded by rows, and n is the global number.
      teacher: similarities of the same images and texts in a space that stays as it is, [n, m].
      eps: weight of the entropy in the student's plan, above 0; 0.05 in the paper. Similarities
        that differ by less than it hardly matter.
      teacher_eps: the same for the teacher's plan; a smaller one makes it nearer to a matching.
      iterations: Sinkhorn iterations for each plan; 100 in the paper.
      mesh: mesh over all of whose axes the rows are sharded; None for one device.

    Returns:
      The divergence, at least 0 for plans that have converged; f32, or f64 of f64 similarities.

    Raises:
      UserError: if shapes do not match, a number is out of range, or the rows are not divisible by
        the mesh.

    References:
      Roschmann et al., `SOTAlign: Semi-Supervised Alignment of Unimodal Vision and Language Models
      via Optimal Transport <https://arxiv.org/abs/2602.23353>`_, 2026 (theorem 5.1).
    """
    student, teacher = _check(student, teacher, mesh)
    eps = arguments.number(eps, "eps", 1e-6)
    teacher_eps = arguments.number(teacher_eps, "teacher_eps", 1e-6)
    iterations = whole_number(iterations, "iterations")
    log_target = transport_plan(teacher, eps=teacher_eps, iterations=iterations, mesh=mesh)
    return _divergence(student, jax.lax.stop_gradient(log_target), eps, iterations, mesh)


def transport_plan(
    similarities: Similarities, *, eps: float, iterations: int = 100, mesh: Mesh | None = None
) -> Float[Array, "n m"]:
    """Computes the logarithm of the entropic optimal-transport plan, by Sinkhorn's iterations.

    The marginals are uniform. After the last iteration the columns sum to 1 / m and the rows nearly
    to 1 / n; the mean of both potentials with one more half step each treats the sides alike.

    Example:
      >>> import jax.numpy as jnp
      >>> jnp.exp(transport_plan(jnp.eye(2), eps=0.1)).round(3).tolist()
      [[0.5, 0.0], [0.0, 0.5]]

    Args:
      similarities: of n rows with m columns, [n, m]; the negative cost.
      eps: weight of the plan's entropy, above 0.
      iterations: number of iterations, each one pass over the rows and one over the columns.
      mesh: mesh over all of whose axes the rows are sharded; None for one device.

    Returns:
      The logarithm of the plan; f32, or f64 of f64 similarities.

    Raises:
      UserError: if `similarities` is no matrix, a number is out of range, or the rows are not
        divisible by the mesh.
    """
    similarities = _matrix(similarities, "similarities", mesh)
    eps, iterations = arguments.number(eps, "eps", 1e-6), whole_number(iterations, "iterations")
    dtype = jnp.promote_types(similarities.dtype, jnp.float32)
    # Rows may be shifted, and what counts in them is then small enough to keep its digits.
    shifted = similarities.astype(dtype)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    logits = by_rows(shifted / eps, mesh)
    log_n, log_m = (jnp.log(jnp.asarray(size, dtype)) for size in logits.shape)

    def rows(v: Array) -> Array:
        return -log_n - jax.nn.logsumexp(logits + v[None, :], axis=1)

    def columns(u: Array) -> Array:
        return -log_m - jax.nn.logsumexp(logits + u[:, None], axis=0)

    def iterate(_: Any, potentials: tuple[Array, Array]) -> tuple[Array, Array]:
        u = rows(potentials[1])
        return u, columns(u)

    start = tuple(jnp.zeros(size, dtype) for size in logits.shape)
    u, v = jax.lax.fori_loop(0, iterations, iterate, start)
    u, v = (u + rows(v)) / 2, (v + columns(u)) / 2
    return by_rows(logits + u[:, None] + v[None, :], mesh)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _divergence(
    student: Array, log_target: Array, eps: float, iterations: int, mesh: Mesh | None
) -> Array:
    return _forward(student, log_target, eps, iterations, mesh)[0]


def _forward(student, log_target, eps, iterations, mesh):
    log_plan = transport_plan(student, eps=eps, iterations=iterations, mesh=mesh)
    target = jnp.exp(log_target)
    # Summed by rows first: the whole sum in one would lose digits where there are many.
    value = (target * (log_target - log_plan)).sum(axis=1).sum()
    # In the type of `student`, which is that of its gradient.
    return value, ((jnp.exp(log_plan) - target) / eps).astype(student.dtype)


def _backward(eps, iterations, mesh, gradient, cotangent):
    return (gradient * cotangent).astype(gradient.dtype), None


_divergence.defvjp(_forward, _backward)


def _check(student: Similarities, teacher: Similarities, mesh: Mesh | None) -> tuple[Array, Array]:
    """Similarities; lists of numbers as arrays."""
    student, teacher = _matrix(student, "student", mesh), _matrix(teacher, "teacher", mesh)
    if student.shape != teacher.shape:
        raise UserError(
            f"student has shape {student.shape} and teacher {teacher.shape}; both must be [n, m]"
        )
    return student, teacher


def _matrix(value: Similarities, name: str, mesh: Mesh | None) -> Array:
    """Similarities as an array whose rows divide over the mesh."""
    value = checked_array(value, name, jnp.floating)
    if value.ndim != 2 or not value.size:
        raise UserError(f"{name} has shape {value.shape}; it must be [n, m]")
    check_mesh(mesh, len(value), f"{name} has {len(value)} rows")
    return jnp.asarray(value)
