"""How large a model is, told from shapes and compared with memory before anything is made.

Every model gets its parameters from `initial`: in training, in closed forms, restored and imported.
A plan counts by the same `Sizes`, for the memory of other devices.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from ape_jax.align.heads.base.batch_norm import STATS
from ape_jax.align.model import Model
from ape_jax.config import Config
from ape_jax.config.components import HEADS, text_parts
from ape_jax.errors import UserError
from ape_jax.parallel import device_memory
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.storage.memory import shown

_TOLD = ("depth", "width", "expansion")
"""Keys of heads that make one large; another is told where it is not at its default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes a device.

    Attributes:
      trained: of trained parameters, by their name at the top of the tree.
      optimizer: of the optimizer's state, and of the moving average where one is kept.
      frozen: of the others, by name.
    """

    trained: Mapping[str, int]
    optimizer: int = 0
    frozen: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.trained.values()) + self.optimizer + sum(self.frozen.values())

    def __str__(self) -> str:
        """What it is made of, for a message."""
        parts = {
            "trained parameters": sum(self.trained.values()),
            "the optimizer": self.optimizer,
            "frozen parameters": sum(self.frozen.values()),
        }
        return ", ".join(f"{shown(size)} of {name}" for name, size in parts.items() if size)


def device_bytes(tree: PyTree) -> int:
    """Bytes a device of arrays or shapes, by their shardings where they have some."""

    def of(x: Any) -> int:
        sharding = getattr(x, "sharding", None)
        shape = sharding.shard_shape(x.shape) if sharding else x.shape
        return math.prod(shape) * x.dtype.itemsize

    return sum(map(of, jax.tree.leaves(tree)))


def count(trainable: PyTree, frozen: PyTree, kept: PyTree = ()) -> Sizes:
    """The sizes of the trees of a model.

    Args:
      trainable: trained parameters, or their shapes.
      frozen: likewise.
      kept: what training keeps beside them.
    """
    return Sizes(
        trained={name: device_bytes(tree) for name, tree in trainable.items()},
        optimizer=device_bytes(kept),
        frozen={name: device_bytes(tree) for name, tree in frozen.items()},
    )


def shapes(model: Model, towers: Mapping[str, PyTree]) -> tuple[PyTree, PyTree]:
    """The shapes of a model's trained and frozen parameters.

    Args:
      model: the model.
      towers: the parameters of its towers, as they were read, or their shapes.
    """
    return jax.eval_shape(functools.partial(model.init, 0), towers)


def initial(
    config: Config,
    model: Model,
    towers: Mapping[str, PyTree],
    mesh: Mesh,
    *,
    rules: mesh_lib.Rules = (),
    kept: PyTree = (),
) -> tuple[PyTree, PyTree]:
    """The initial parameters of a model that memory has room for: `(trainable, frozen)`.

    Args:
      config: the resolved config.
      model: the model.
      towers: the parameters of its towers, as they were read.
      mesh: the devices that it is meant for.
      rules: by which parameters lie on them.
      kept: shapes of what training keeps beside the trained parameters.

    Raises:
      UserError: it is larger than the memory that is free; says both, and the key to change.
    """
    free = device_memory.free_bytes(mesh)
    if free is not None:
        trainable, frozen = shapes(model, towers)
        heads = {name: tree for name, tree in trainable.items() if name.endswith("_head")}
        if mesh.devices.flat[0].platform == "cpu":  # They are in its memory already.
            frozen = {}
        placed = _placed((trainable, kept, frozen), mesh, config.mesh.shard_min_size, rules)
        # Heads are made whole on one device before they are shared out over all.
        sizes = max(count(heads, {}), placed, key=lambda sizes: sizes.total)
        if sizes.total > free:
            raise UserError(refusal(config, sizes, f"{shown(free)} of memory are free on a device"))
    return model.init(config.seed, towers)


def refusal(config: Config, sizes: Sizes, free: str) -> str:
    """The sentence on a model that is too large.

    Args:
      config: the resolved config.
      sizes: of the model.
      free: what there is, as the end of the first half of the sentence.
    """
    name, largest = max(
        (*sizes.trained.items(), *sizes.frozen.items()), key=lambda item: item[1], default=("", 0)
    )
    key, remedy = _key(config, name, name in sizes.trained)
    return (
        f"config.{key}: the model takes {shown(sizes.total)} a device ({sizes}), and {free}; the "
        f"largest part is {name} with {shown(largest)}: {remedy}"
    )


def _placed(
    trees: tuple[PyTree, PyTree, PyTree], mesh: Mesh, min_size: int, rules: mesh_lib.Rules
) -> Sizes:
    """The sizes of trained parameters, what is kept beside, and the others, on a mesh."""
    trainable, kept, frozen = trees
    trained = functools.partial(mesh_lib.trained_shardings, mesh=mesh, roots=tuple(trainable))
    how = {"min_size": min_size, "rules": rules}
    at = trained(trainable, **how), trained(kept, **how)
    at += (mesh_lib.frozen_shardings(frozen, mesh, **how),)
    sharded = [
        jax.tree.map(lambda x, on: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on), *both)
        for both in zip(trees, at)
    ]
    return count(sharded[0], sharded[2], sharded[1])


def _key(config: Config, name: str, trained: bool) -> tuple[str, str]:
    """The config key that makes a part of the model large, and what to write."""
    side, _, part = name.partition("_")
    if name == STATS or side not in ("image", "text"):
        return "text.head", "write a smaller head"
    if part == "head":
        head = config.side(side).head
        specs = text_parts(head.name) if side == "text" else {head.name: HEADS[head.name]}
        keys = {key: field for spec in specs.values() for key, field in spec.keys.items()}
        told = [
            f"{side}.head.{key}={head[key]!r}"
            for key, field in keys.items()
            if key in _TOLD and (head[key] != field.default or key == "depth")
        ]
        told += [f"embed={config.embed}"] if config.embed else []
        listed = ", ".join(told) or f"{side}.head.name={head.name!r}"
        return f"{side}.head", f"{listed}; write less"
    tune = config.side(side).tune
    if trained:
        return f"{side}.tune", f"{side}.tune={tune!r}; write a mode that trains less, or 'frozen'"
    return f"{side}.tower", f"write a smaller tower, or {side}.param_dtype='bfloat16'"
