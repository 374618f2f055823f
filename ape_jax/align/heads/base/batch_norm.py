"""Batch norm as torch has it, its running statistics in Flax's collection `batch_stats`.

Running statistics are no parameters: they have no gradient, and neither the optimizer nor a count
of parameters sees them. They travel in the trained tree under a name of their own, `batch_stats`,
and a training step replaces them by what the forward pass returns (`training.step`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

STATS = "batch_stats"
_MOMENTUM = 0.1  # torch's: the weight of the new batch.
_EPS = 1e-5
_RUNNING = r".+/running_(mean|variance)"


class BatchNorm(nn.Module):
    """torch's `BatchNorm1d`, with its epsilon and momentum: of the global batch on any mesh.

    In training columns are normalised by mean and variance of the batch, else by the running ones,
    which average the batch's mean and unbiased variance (`flax.linen.BatchNorm` averages the biased
    one).

    References:
      Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B d"], *, train: bool) -> Float[Array, "B d"]:
        """Normalises each column, scales and shifts it."""
        shape, ones, zeros = (x.shape[-1],), nn.initializers.ones, nn.initializers.zeros
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        running = {
            "mean": self.variable(STATS, "running_mean", jnp.zeros, shape),
            "variance": self.variable(STATS, "running_variance", jnp.ones, shape),
        }
        used = {name: variable.value for name, variable in running.items()}
        if train:
            used = {"mean": x.mean(axis=0), "variance": x.var(axis=0)}
            unbiased = used["variance"] * (len(x) / max(len(x) - 1, 1))
            for name, new in (used | {"variance": unbiased}).items():
                old = running[name].value
                running[name].value = old + _MOMENTUM * (jax.lax.stop_gradient(new) - old)
        return (x - used["mean"]) * jax.lax.rsqrt(used["variance"] + _EPS) * scale + bias


def parted(trainable: Mapping[str, PyTree]) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """The trained parameters, and `{"batch_stats": ...}`, {} for a model without batch norm."""
    stats = {name: tree for name, tree in trainable.items() if name == STATS}
    return {name: tree for name, tree in trainable.items() if name != STATS}, stats


def joined(trainable: Mapping[str, PyTree]) -> Mapping[str, PyTree]:
    """Running statistics beside the parameters of their norm: the form on disk and in exports."""
    parameters, stats = parted(trainable)
    if not stats:
        return trainable
    flat = (flax.traverse_util.flatten_dict(tree) for tree in (parameters, stats[STATS]))
    return flax.traverse_util.unflatten_dict({k: leaf for tree in flat for k, leaf in tree.items()})


def separated(trainable: Mapping[str, PyTree]) -> Mapping[str, PyTree]:
    """Inverse of `joined`."""
    flat = flax.traverse_util.flatten_dict(dict(trainable), sep="/")
    moved = {f"{STATS}/{k}" if re.fullmatch(_RUNNING, k) else k: leaf for k, leaf in flat.items()}
    return flax.traverse_util.unflatten_dict(moved, sep="/")


def folded(params: Mapping[str, Any]) -> PyTree:
    """The parameters of an MLP with each `norm_i` multiplied into the `dense_i` before it.

    Outside of training that is the same function, and it has no norms.

    Args:
      params: of the head, as `joined` has them.
    """
    rest = {name: dict(tree) for name, tree in params.items() if not name.startswith("norm_")}
    for name, norm in params.items():
        if name.startswith("norm_"):
            dense = rest[name.replace("norm_", "dense_")]
            factor = norm["scale"] / jnp.sqrt(norm["running_variance"] + _EPS)
            dense["kernel"] = dense["kernel"] * factor
            dense["bias"] = (dense["bias"] - norm["running_mean"]) * factor + norm["bias"]
    return rest
