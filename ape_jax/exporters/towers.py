"""A tower in transformers' terms: its config there, and its tensors under their names in files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np
from jaxtyping import PyTree

from ape_jax.align.model import Side
from ape_jax.align.tuning.selection import blocks_read, flatten, is_final
from ape_jax.errors import UserError
from ape_jax.towers.family import FAMILIES, Arrays, TorchClass
from ape_jax.towers.files import names
from ape_jax.towers.files.names import NameTable
from ape_jax.towers.tower import TowerConfig

Tensors = Arrays
_ADAPTER = "/adapter/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """A tower as transformers takes it.

    Attributes:
      config: content of a config.json; as deep as the tower is read.
      tensors: f32, by their names in a file of that model.
      adapters: where adapters stand and their sizes, as `modeling_ape.py` takes it; None without.
      last_norm: whether what is read has passed the tower's last norm, if it has one.
      end_token: the token behind which a text is masked, None where nothing is.
      joined: of several layers that are joined, how many blocks lie below each, None for the
        output; () where one layer is read.
    """

    config: dict[str, Any]
    tensors: Tensors
    adapters: dict[str, Any] | None
    last_norm: bool
    end_token: int | None
    joined: tuple[int | None, ...] = ()


def export(side: Side, params: PyTree, *, keep_positions: bool = False) -> Exported:
    """One tower of a model.

    Args:
      side: the side that it is on.
      params: its parameters (`align.tuning.tuned.Tuned.merged`).
      keep_positions: leave the position table to a class that resizes it itself, as DINOv2's does.

    Raises:
      UserError: for a tower that transformers has no class for.
    """
    torch = torch_class(side.tower.config)
    if side.pooling == "head":
        raise UserError(
            f"--format: the {side.tower.config.family} tower pools by sentence-transformers' Dense "
            "modules, for which transformers has no class; write --format jax"
        )
    flat = flatten(params)
    adapters = {name: leaf for name, leaf in flat.items() if _ADAPTER in name}
    plain = {name: np.asarray(v, np.float32) for name, v in flat.items() if name not in adapters}
    depth = max((len(v) for name, v in plain.items() if name.startswith("blocks/")), default=0)
    if side.tower.config.tied:
        depth = blocks_read(side.tower, side.layer)
    config = dataclasses.replace(side.tower.config, depth=depth)
    if config.kind == "image" and not (keep_positions and torch.resizes):
        config, plain = _image_sized(config, plain, side.tower.prepare.transform.size)
    described, table = torch.describe(config, side.pooling), torch.table(config)
    computed = FAMILIES[config.family].computed(config)
    tensors = _tensors(table, torch.complete(config, plain) | computed, config)
    settings, more = _adapters(table, adapters)
    unused = {
        name: np.zeros((1,) * ones + (config.width,), np.float32)
        for name, ones in torch.unused.items()
    }
    return Exported(
        config=described,
        tensors={**tensors, **unused, **more},
        adapters=settings,
        last_norm=is_final(side.tower, side.layer),
        joined=_joined(side),
        end_token=torch.end_token(config),
    )


def _joined(side: Side) -> tuple[int | None, ...]:
    """Where transformers' `hidden_states` have the layers that are joined.

    Raises:
      UserError: for the stream between the last block and the last norm, of which classes differ in
        what they give.
    """
    config, found = side.tower.config, []
    final = is_final(side.tower, side.layer)
    for layer in config.joined:
        # A tower that is cut there gives it as its output, without a last norm.
        top = layer == blocks_read(side.tower, -1)
        if final and top:
            raise UserError(
                f"--format: layer {layer} of {config.kind}.layer={config.joined} lies between the "
                "tower's last block and its last norm, which transformers does not give; write "
                "--format jax"
            )
        found.append(None if layer == -1 or top else layer)
    return tuple(found)


def torch_class(config: TowerConfig) -> TorchClass:
    """A tower as it is written for transformers.

    Raises:
      UserError: where its family says that it is not.
    """
    found = FAMILIES[config.family].torch
    if isinstance(found, str):
        raise UserError(f"--format: the {config.family} tower {found}; write --format jax")
    return found


def _image_sized(config: TowerConfig, flat: Tensors, size: int) -> tuple[TowerConfig, Tensors]:
    """With the position table of the images that `prepare` makes.

    A tower resizes its table to its input anyway; done once, no class must know how.
    """
    new = dataclasses.replace(config, image_size=size)
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    resized = flatten(FAMILIES[config.family].resize(params, config, new))
    return new, {name: np.asarray(array, np.float32) for name, array in resized.items()}


def _tensors(table: NameTable, flat: Tensors, config: TowerConfig) -> Tensors:
    covered = {path for rule in table.rules for path in rule.paths}
    if left := set(flat) - covered:
        raise UserError(
            f"the {config.family} tower's {min(left)} has no place in transformers' class for it; "
            "export with --format jax"
        )
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    return names.to_file(table, params, heads=config.heads)


def _adapters(table: NameTable, flat: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Tensors]:
    """Settings, and tensors beside those of the modules that the adapters are in."""
    if not flat:
        return None, {}
    files = {path: rule.file for rule in table.rules for path in rule.paths}
    places, tensors, before = [], {}, False
    for name, leaf in sorted(flat.items()):
        place, _, rest = name.partition(_ADAPTER)
        part, kind = rest.split("/")
        before = f"{place}/scale" in files
        file = files[f"{place}/{'scale' if before else 'kernel'}"].removesuffix(".weight")
        places.append(file.split("{i}.")[1])
        suffix = "weight" if kind == "kernel" else "bias"
        for i, array in enumerate(np.asarray(leaf, np.float32)):
            to = f"{file.replace('{i}', str(i))}.adapter.{part}.{suffix}"
            tensors[to] = np.ascontiguousarray(array.T)
    down = next(leaf for name, leaf in flat.items() if name.endswith("/down/kernel"))
    sizes = dict(zip(("blocks", "width", "hidden"), down.shape))
    return {"places": sorted(set(places)), "before": before, **sizes}, tensors
