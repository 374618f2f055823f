"""Batch norm whose running statistics are parameters with a gradient of their own.

A step is a pure function of the trained parameters, and everything that has to do with them (the
optimizer, checkpoints, placement on a mesh) knows leaves of one tree only. So the running mean and
variance are leaves of it, and the "gradient" of each is how far it is from the batch's statistic:

    running - rate * (running - batch) = (1 - rate) * running + rate * batch

Plain descent at torch's momentum is the moving average, whatever the optimizer of the others is
(`training.optim` takes these leaves out by name).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

RATE = 0.1
_EPS = 1e-5
_RUNNING = r"(.+/)?running_(mean|variance)"


def is_running(name: str) -> bool:
    """Whether a parameter, by its path, is a running statistic."""
    return re.fullmatch(_RUNNING, name) is not None


class BatchNorm(nn.Module):
    """torch's `BatchNorm1d`, with its epsilon and momentum: of the global batch on any mesh.

    In training columns are normalised by mean and variance of the batch, else by the running ones,
    which average the batch's mean and unbiased variance.

    References:
      Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B d"], *, train: bool) -> Float[Array, "B d"]:
        """Normalises each column, scales and shifts it."""
        shape, ones, zeros = (x.shape[-1],), nn.initializers.ones, nn.initializers.zeros
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        running = (
            self.param("running_mean", zeros, shape),
            self.param("running_variance", ones, shape),
        )
        if not train:
            return _affine(x, *running) * scale + bias
        mean, variance = x.mean(axis=0), x.var(axis=0)
        y = _affine(x, mean, variance) * scale + bias
        unbiased = variance * (len(x) / max(len(x) - 1, 1))
        return _tracked(y, running, (mean, unbiased))


def folded(params: Mapping[str, Any]) -> PyTree:
    """The parameters of an MLP with each `norm_i` multiplied into the `dense_i` before it.

    Outside of training that is the same function, and it has no norms.
    """
    rest = {name: dict(tree) for name, tree in params.items() if not name.startswith("norm_")}
    for name, norm in params.items():
        if name.startswith("norm_"):
            dense = rest[name.replace("norm_", "dense_")]
            factor = norm["scale"] / jnp.sqrt(norm["running_variance"] + _EPS)
            dense["kernel"] = dense["kernel"] * factor
            dense["bias"] = (dense["bias"] - norm["running_mean"]) * factor + norm["bias"]
    return rest


def _affine(x: Array, mean: Array, variance: Array) -> Array:
    return (x - mean) * jax.lax.rsqrt(variance + _EPS)


@jax.custom_vjp
def _tracked(y: Array, running: PyTree, batch: PyTree) -> Array:
    """`y`; backward, each running statistic gets its distance to the batch's."""
    return y


def _track_backward(saved: tuple[PyTree, PyTree], g: Array) -> tuple[Array, PyTree, PyTree]:
    running, batch = saved
    distances = jax.tree.map(jnp.subtract, running, batch)
    return g, distances, jax.tree.map(jnp.zeros_like, batch)


_tracked.defvjp(lambda y, running, batch: (y, (running, batch)), _track_backward)
