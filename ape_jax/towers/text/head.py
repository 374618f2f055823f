"""What sentence-transformers puts on a tower's tokens: a pooling, dense layers, norms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ape_jax.config import poolings
from ape_jax.errors import UserError
from ape_jax.nn.layers import ACTIVATIONS, Dense, LayerNorm
from ape_jax.towers.files import sources
from ape_jax.towers.files.sentence import Head, Layer
from ape_jax.towers.pooling import joined

_NORM_EPS = 1e-5  # torch's default, which sentence-transformers' LayerNorm has.

TORCH_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "Identity": lambda x: x,
    "Tanh": ACTIVATIONS["tanh"],
    "ReLU": ACTIVATIONS["relu"],
    "GELU": ACTIVATIONS["gelu"],
    "SiLU": ACTIVATIONS["silu"],
    "Sigmoid": jax.nn.sigmoid,
    "LogSigmoid": jax.nn.log_sigmoid,
    "LeakyReLU": partial(jax.nn.leaky_relu, negative_slope=0.01),
    "ReLU6": jax.nn.relu6,
    "ELU": jax.nn.elu,
    "SELU": jax.nn.selu,
    "Mish": jax.nn.mish,
    "Softplus": jax.nn.softplus,
    "Softsign": jax.nn.soft_sign,
    "Hardtanh": jax.nn.hard_tanh,
}
"""By torch's classes, with their default settings."""


class SentenceHead(nn.Module):
    """The modules of a sentence-transformers folder from its Pooling on.

    Attributes:
      config: see `files.sentence.Head`.
      dtype: input dtype of products.
      param_dtype: dtype of the parameters.
    """

    config: Head
    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b t d"], mask: Bool[Array, "b t"]
    ) -> Float[Array, "b e"]:
        """Pools the tokens, those of the prompt left out where the config says so, and maps it."""
        kept = mask
        if self.config.skip:
            first = jnp.argmax(mask, axis=1)[:, None] + self.config.skip
            kept = mask & (jnp.arange(mask.shape[1]) >= first)
        x = joined(tokens, kept, self.config.pooling, counted=mask).astype(jnp.float32)
        for place, layer in enumerate(self.config.layers):
            if layer.kind == "unit":
                x = unit(x)
            elif layer.kind == "norm":
                x = LayerNorm(_NORM_EPS, self.param_dtype, name=f"norm_{place}")(x)
            else:
                x = self._dense(x, layer, place)
        return x

    def _dense(self, x: Array, layer: Layer, place: int) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = Dense(layer.width, layer.bias, **types, name=f"dense_{place}")(x)
        y = TORCH_ACTIVATIONS[layer.activation](y)
        if layer.residual == "same":
            return y + x
        if layer.residual:
            return y + Dense(layer.width, False, **types, name=f"residual_{place}")(x)
        return y


def unit(x: Float[Array, "b e"]) -> Float[Array, "b e"]:
    """Rows divided by their length, as torch's `normalize` does: a zero row stays zero."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def check_activations(head: Head, root: Path) -> None:
    """Raises UserError for an activation that is not known here."""
    for layer in head.layers:
        if layer.activation not in TORCH_ACTIVATIONS:
            raise UserError(
                f"{root / layer.path}: the activation {layer.activation!r} is none of "
                f"{', '.join(TORCH_ACTIVATIONS)}; write torch:st:{root} as the tower"
            )


def read_params(head: Head, root: Path, width: int) -> tuple[dict[str, Any], str]:
    """The parameters of a head, and the digest of their tensors.

    Args:
      head: the modules.
      root: the folder of modules.json.
      width: of the tower.

    Returns:
      The tree of `SentenceHead`, f32; {} where no module has parameters.

    Raises:
      UserError: for a tensor that is missing, unexpected or of another shape.
    """
    params, digest = {}, sources.Digest()
    width *= len(poolings.parts(head.pooling))
    for place, layer in enumerate(head.layers):
        wanted = _tensors(layer, width, place)
        width = layer.width or width
        if not wanted:
            continue
        tensors = _module_tensors(root / layer.path)
        shapes = {name: shape for name, (shape, _) in wanted.items()}
        if tensors.shapes != shapes:
            raise UserError(
                f"{tensors.label}: the tensors are {_listed(tensors.shapes)} and should be "
                f"{_listed(shapes)}; fetch the folder again"
            )
        for name, (_, path) in wanted.items():
            array = tensors.read(name)
            digest.add(f"{layer.path}/{name}", array)
            array = np.asarray(array, np.float32)
            params[path] = np.ascontiguousarray(array.T) if array.ndim == 2 else array
    return flax.traverse_util.unflatten_dict(params, sep="/"), digest.hexdigest()


def _module_tensors(folder: Path) -> sources.SafeTensors:
    pickled = folder / "pytorch_model.bin"
    if sources.is_there(pickled) and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{pickled} is in a format that can run code when it is read; convert it once where "
            "you trust it: SentenceTransformer(DIR).save_pretrained(NEW_DIR) writes safetensors"
        )
    return sources.SafeTensors(folder)


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))


def _tensors(layer: Layer, width: int, place: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """The tensors of a module: their shapes, and the paths of our parameters."""
    if layer.kind == "unit":
        return {}
    if layer.kind == "norm":
        parts = (("norm.weight", "scale"), ("norm.bias", "bias"))
        return {name: ((width,), f"norm_{place}/{part}") for name, part in parts}
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    found |= {"linear.weight": ((layer.width, width), f"dense_{place}/kernel")}
    if layer.bias:
        found["linear.bias"] = ((layer.width,), f"dense_{place}/bias")
    if layer.residual == "dense":
        found["residual.weight"] = ((layer.width, width), f"residual_{place}/kernel")
    return found
