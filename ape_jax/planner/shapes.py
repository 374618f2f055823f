"""A run's model, state and batch as shapes: no weight is read, no array is made."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from ape_jax import towers
from ape_jax.align.model import Model
from ape_jax.config import Config
from ape_jax.config.components import text_needs
from ape_jax.config.outside import is_outside, is_precomputed, is_torch
from ape_jax.config.sections import ImageConfig, TextConfig
from ape_jax.errors import UserError
from ape_jax.features import frontier
from ape_jax.features.ragged import bucket
from ape_jax.nn import int8
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.planner.known import KNOWN
from ape_jax.runs import build, size
from ape_jax.towers import precomputed
from ape_jax.towers.tower import Kind, Tower
from ape_jax.training import blocks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captions:
    """Assumed lengths of captions.

    Attributes:
      mean: tokens a caption.
      longest: tokens of the longest.
    """

    mean: float
    longest: int


def abstract_towers(config: Config) -> build.Towers:
    """The image and the text tower, their parameters being shapes.

    Raises:
      UserError: naming the key, for a tower whose sizes are not known here.
    """
    return build.Towers.of(_tower(config, "image"), _tower(config, "text"))


def _tower(config: Config, kind: Kind) -> tuple[Tower, PyTree]:
    spec, side = config.side(kind).tower, config.side(kind)
    if is_precomputed(spec):
        return precomputed.read(spec, kind), {}
    if is_torch(spec):
        return _torch_tower(config, kind), {}
    options: dict[str, Any] = {"dtype": side.dtype, "param_dtype": side.param_dtype}
    if isinstance(side, ImageConfig) and side.size:
        options["image_size"] = side.size
    if isinstance(side, TextConfig) and side.max_length:
        options["max_length"] = side.max_length
    try:
        module, found = towers.build(_description(spec), kind=kind, **options)
    except UserError as error:
        raise UserError(f"config.{kind}.tower: {error}") from error
    params = towers.abstract_params(module)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, module.param_dtype), params)
    if side.param_dtype == "int8":
        params = jax.eval_shape(int8.quantized, params)
    tower = Tower(kind=kind, module=module, config=found, prepare=None, spec=spec, digest="")
    return tower, params


def _torch_tower(config: Config, kind: Kind) -> Tower:
    """A tower that another library runs: what it gives is measured, so its files must be here."""
    side = config.side(kind)
    if not pathlib.Path(side.tower.split(":", 2)[-1]).expanduser().is_dir():
        raise UserError(
            f"config.{kind}.tower: a plan fetches nothing, and only {side.tower!r} itself says how "
            "wide its features are; write the path of its directory after the second colon"
        )
    return build.load_tower(config, kind)[0]


def _description(spec: str) -> Any:
    """Input of `towers.build`: a known config, or the directory of a config.json."""
    known = spec.partition("@")[0]
    if known in KNOWN:
        return KNOWN[known]
    if (pathlib.Path(spec) / "config.json").is_file():
        return spec
    raise UserError(
        f"a plan fetches nothing, and {spec!r} is neither a directory with a config.json nor one "
        f"of the models whose sizes are built in ({', '.join(KNOWN)})"
    )


def abstract_model(config: Config, towers: build.Towers) -> tuple[Model, PyTree, PyTree]:
    """The model, and its trainable and frozen trees as shapes."""
    model = build.make_model(config, towers)
    return model, *size.shapes(model, towers.params)


def batch(
    config: Config, model: Model, mesh: Mesh, captions: Captions
) -> dict[str, jax.ShapeDtypeStruct]:
    """One training batch, as `training.input.host_feed.HostFeed.batches` makes them.

    Captions that are encoded beforehand come packed, one group a device and part of a batch,
    with room for their mean length; all others as long as the longest.
    """
    count, stored = config.train.batch, jnp.dtype(config.cache.dtype)
    if getattr(model.text.tower.config, "attends_padding", False):  # All texts are filled up.
        full = model.text.tower.config.max_length
        captions = Captions(mean=full, longest=full)
    if model.text.pooling != "none":  # One vector stands for all tokens.
        captions = Captions(mean=1, longest=1)
    each = config.loss.positives + config.loss.hard
    rows = count * each
    made: dict[str, tuple[tuple[int, ...], Any]] = {"index": ((count,), jnp.int32)}
    texts = (count,) if each == 1 else (count, each)
    made["text"] = (texts, jnp.int32)
    made |= _images(config, model, count, stored)
    length = min(captions.longest, config.text.max_length or captions.longest)
    width = model.text.token_width
    if model.text.frontier == "input" or not (
        config.cache.text or is_outside(model.text.tower.spec)
    ):
        padded = (rows, -(-length // 8) * 8)
        made |= {"ids": (padded, jnp.int32), "mask": (padded, jnp.bool_)}
    elif model.text.frontier == "hidden":
        padded = (rows, -(-length // 4) * 4)
        made |= {"tokens": ((*padded, width), stored), "mask": (padded, jnp.bool_)}
    else:
        groups = mesh.size * blocks.micro_batches(config.train)
        made |= _packed(config, rows, groups, captions, length, width, stored)
    sharding = mesh_lib.over_batch(mesh)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, (shape, dtype) in made.items()
    }


def _images(
    config: Config, model: Model, count: int, stored: Any
) -> dict[str, tuple[tuple[int, ...], Any]]:
    side, tower = model.image, model.image.tower.config
    if outside := frontier.outside_tower(side, config.eval.batch):
        return {"pooled": ((count, *outside.image_shape()), stored)}
    if side.frontier == "input" or not (config.cache.views or is_precomputed(side.tower.spec)):
        size = getattr(tower, "input_size", tower.image_size)
        return {"image": ((count, size, size, 3), jnp.float32)}
    tokens = ()
    if side.frontier == "hidden" or side.pooling == "none":
        tokens = (tower.prefix_tokens + (tower.image_size // tower.patch_size) ** 2,)
    width = tower.width if tokens else tower.pooled_width(side.pooling)
    return {"pooled": ((count, *tokens, width), stored)}


def _packed(
    config: Config,
    rows: int,
    groups: int,
    captions: Captions,
    length: int,
    width: int,
    stored: Any,
) -> dict[str, tuple[tuple[int, ...], Any]]:
    share = rows // groups
    size = bucket(round(share * captions.mean))
    made = {
        "tokens": ((groups, size, width), stored),
        "lengths": ((groups, share), jnp.int32),
    }
    wanted = text_needs(config.text.head.name)
    if "ids" in wanted:
        made["ids"] = ((groups, size), jnp.int32)
    if "token_index" in wanted:
        made["token_index"] = ((groups, share, length), jnp.int32)
    return made
