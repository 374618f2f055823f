"""What finished two-tower models hold beside their towers: projections, poolers, a scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set

import numpy as np
from jaxtyping import Float32

from ape_jax.errors import UserError
from ape_jax.towers.files.names import Tensors

Pooler = tuple[Float32[np.ndarray, "d h"], Float32[np.ndarray, " h"] | None]
Projection = tuple[Float32[np.ndarray, "_ E"], Float32[np.ndarray, " E"] | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Top:
    """Projection and pooler on one tower.

    Attributes:
      pooling: how the tower's output becomes one vector, by `tower.pool`.
      pooler: kernel f32 [d, h] and bias f32 [h] or None of a layer under the projection, None
        without one.
      activation: what follows that layer.
      projection: kernel f32 [d, E] and bias f32 [E] or None; None where nothing is projected.
      adapters: LilT's in the tower's blocks, by our paths (`lilt.read_adapters`).
    """

    pooling: str
    pooler: Pooler | None = None
    activation: str = "tanh"
    projection: Projection | None = None
    adapters: Mapping[str, Float32[np.ndarray, "L ..."]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aligned:
    """A finished model without its towers.

    Attributes:
      image, text: what stands on the towers.
      log_scale: the log of the inverse temperature, f32.
      bias: of a sigmoid loss, f32; None without one.
      unread: tensors that no output depends on, by their names in the file.
    """

    image: Top
    text: Top
    log_scale: np.float32
    bias: np.float32 | None
    unread: Mapping[str, np.ndarray]


class Reader:
    """Reads tensors in f32, the way parameters lie."""

    def __init__(self, tensors: Tensors):
        self.tensors = tensors

    def __call__(self, name: str) -> Float32[np.ndarray, "..."]:
        """One tensor, by its name in the file."""
        if name not in self.tensors.shapes:
            raise UserError(
                f"{self.tensors.label}: tensor {name!r} is missing; fetch the whole model again, "
                "with the config.json that belongs to it"
            )
        return np.asarray(self.tensors.read(name), np.float32)

    def scalar(self, name: str) -> np.float32:
        """The one number of a tensor [] or [1]."""
        value = self(name)
        if value.size != 1 or not np.isfinite(value).all():
            raise UserError(
                f"{self.tensors.label}: tensor {name!r} is {list(value.shape)} and not one finite "
                "number; fetch the model again"
            )
        return np.float32(value.item())

    def linear(self, name: str, *, bias: bool) -> Projection:
        """A torch linear layer."""
        weight = self(f"{name}.weight")
        if weight.ndim != 2:
            raise UserError(
                f"{self.tensors.label}: tensor '{name}.weight' is {list(weight.shape)} and should "
                "have two axes; fetch the model again"
            )
        return np.ascontiguousarray(weight.T), self(f"{name}.bias") if bias else None

    def only(self, prefixes: tuple[str, ...], names: Set[str]) -> None:
        """Raises UserError for tensors that belong to nothing."""
        extra = [n for n in self.tensors.shapes if not n.startswith(prefixes) and n not in names]
        if extra:
            raise UserError(
                f"{self.tensors.label}: tensor {min(extra)!r} is in no part of such a model; "
                "write the config.json that belongs to these weights"
            )
