"""Structure term of STRUCTURE: a head keeps the neighbourhoods that its tower's features have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ape_jax import arguments
from ape_jax.align.losses.contrastive import by_rows, check_mesh, checked_array, cosines_of
from ape_jax.errors import UserError, whole_number

_TINY = float(np.finfo(np.float32).tiny)


def structure(
    before: Float[Array | np.ndarray, "n d"],
    after: Float[Array | np.ndarray, "n e"],
    *,
    temperature: float = 0.05,
    levels: int = 1,
    mesh: Mesh | None = None,
) -> Float[Array, ""]:
    """Computes how far the neighbourhoods of `after` are from those of `before`.

    The neighbourhoods P of n vectors are the rows of an [n, n] matrix: the vectors are brought to
    unit length, their mean is taken off, and each row of the products z z^T / temperature goes
    through a softmax. The term compares P of `before` with Q of `after` by the Jensen-Shannon
    divergence of their rows, averaged over rows; level l compares the matrix powers P^l and Q^l,
    neighbours of neighbours, and is weighted by 1 / l:

        R = 1 / levels * sum over l of JS(P^l, Q^l) / l

    It needs no pairs: each modality has a term of its own, and vectors without a partner can be
    among the rows. There is no gradient with respect to `before`, which is what is kept.

    The published code computes KL(M || P) + KL(M || Q) with the mean M of P and Q, the two
    arguments of each divergence exchanged; here it is Jensen-Shannon's as the paper has it.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
      >>> turned = jnp.stack([x[:, 1], 2 * x[:, 2], 2 * x[:, 0]], axis=1)
      >>> float(structure(x, x[:, ::-1])) < 1e-6  # the same neighbourhoods in another order
      True
      >>> float(structure(x, turned)) > 1e-3
      True

    Args:
      before: features below the head, f32 or bf16 [n, d]; n is the global batch. On a mesh the
        array may be sharded by rows.
      after: embeddings of the same rows, f32 or bf16 [n, e]. Neither needs unit length.
      temperature: divisor of the cosines, at least 1e-6; 0.05 in the paper.
      levels: highest matrix power; 1 in the paper.
      mesh: mesh over all of whose axes the rows are sharded; None for one device.

    Returns:
      The term, an f32 scalar between 0 and log 2.

    Raises:
      UserError: if shapes do not match, `temperature` or `levels` is out of range, or the rows are
        not divisible by the mesh.

    References:
      Groeger et al., `With Limited Data for Multimodal Alignment, Let the STRUCTURE Guide You
      <https://arxiv.org/abs/2506.16895>`_, 2025.
    """
    before, after = _check(before, after, mesh)
    temperature = arguments.number(temperature, "temperature", 1e-6)
    levels = whole_number(levels, "levels")
    kept = jax.lax.stop_gradient(_neighbours(before, temperature, mesh))

    # Of its several [n, n] matrices only `kept` is there between the passes.
    @jax.checkpoint
    def divergence(after: Array, kept: Array) -> Array:
        moved = _neighbours(after, temperature, mesh)
        one, other, total = kept, moved, _jensen_shannon(kept, moved)
        for level in range(2, levels + 1):
            one, other = (_product(x, y, mesh) for x, y in ((one, kept), (other, moved)))
            total = total + _jensen_shannon(one, other) / level
        return total / levels

    return divergence(after, kept)


def _neighbours(
    x: Float[Array | np.ndarray, "n d"], temperature: float, mesh: Mesh | None
) -> Float[Array, "n n"]:
    """Row softmaxes of the products of centred unit vectors."""
    x = by_rows(x, mesh).astype(jnp.float32)
    unit = x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=1, keepdims=True), 1e-24))
    centred = unit - unit.mean(axis=0)
    return jax.nn.softmax(cosines_of(centred, centred, mesh) / temperature, axis=1)


def _product(
    x: Float[Array, "n n"], y: Float[Array, "n n"], mesh: Mesh | None
) -> Float[Array, "n n"]:
    return by_rows(jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST), mesh)


def _jensen_shannon(p: Float[Array, "n n"], q: Float[Array, "n n"]) -> Float[Array, ""]:
    """Mean Jensen-Shannon divergence of the rows of two matrices of probabilities."""
    log_mean = jnp.log(jnp.maximum((p + q) / 2, _TINY))
    terms = (x * (jnp.log(jnp.maximum(x, _TINY)) - log_mean) for x in (p, q))
    return sum(terms, jnp.zeros(())).sum(axis=1).mean() / 2


def _check(before: Array | np.ndarray, after: Array | np.ndarray, mesh: Mesh | None) -> tuple:
    """Features and embeddings; lists of numbers as arrays."""
    before = checked_array(before, "before", jnp.floating)
    after = checked_array(after, "after", jnp.floating)
    if before.ndim != 2 or after.ndim != 2 or len(before) != len(after) or not before.size:
        raise UserError(
            f"before has shape {before.shape} and after {after.shape}; they must be [n, d] and "
            "[n, e] with the same n"
        )
    check_mesh(mesh, len(before), f"before has {len(before)} rows")
    return before, after
