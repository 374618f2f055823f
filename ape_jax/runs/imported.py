"""A finished two-tower model as one of ours: its config, its heads, its parameters.

Everything such a model has on its towers is a head of `align.heads`: a projection is `linear` (one
without a bias gets a bias of zero), BERT's and ViT's pooler with the projection behind it is
`pooled_mlp` with two layers and tanh. So it is loaded, evaluated, exported and trained as a run is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, PyTree

from ape_jax import config as config_lib
from ape_jax.align.tuning.selection import flatten
from ape_jax.config import Config, tune
from ape_jax.errors import UserError
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build, provenance, size
from ape_jax.runs.aligned import AlignedModel
from ape_jax.towers import aligned, loading
from ape_jax.towers.finished import Aligned, Top


def load(spec: str | os.PathLike[str], settings: Mapping[str, Any] | None = None) -> AlignedModel:
    """Loads a finished model, with products in f32.

    Args:
      spec: a directory, `hf:org/name[@revision]` or an .npz.
      settings: config keys to set otherwise, such as `{"eval.batch": 8}`.

    Raises:
      UserError: as `towers.load` and `aligned.read`.
    """
    spec = os.fspath(spec)
    found = aligned.read(spec)
    own = {"image.tower": spec, "text.tower": spec, "image.dtype": "float32"}
    own |= {"text.dtype": "float32", **config_settings(found), **(settings or {})}
    config = Config().replace(own)
    read = (loading.read(spec, kind=k, dtype=config.side(k).dtype) for k in ("image", "text"))
    towers = build.Towers.of(*read)
    model = build.make_model(config, towers)
    mesh = mesh_lib.make_mesh()
    trainable, frozen = size.initial(config, model, towers.params, mesh)
    return AlignedModel(
        config=config,
        model=model,
        trainable=mesh_lib.place_replicated(install(trainable, found, spec), mesh),
        frozen=mesh_lib.place_frozen(frozen, mesh, config.mesh.shard_min_size),
        meta=provenance.meta(config, towers),
        mesh=mesh,
        source=spec,
        unread=found.unread,
    )


def start(config: Config, trainable: PyTree) -> PyTree:
    """Fresh parameters of a run with the heads, scale and bias of `start.model`.

    Args:
      config: the resolved config.
      trainable: as `Model.init` gives it.

    Raises:
      UserError: naming the keys that would make such heads, where the run has others.
    """
    spec = config.start.model
    try:
        found = aligned.read(spec)
        wanted = {k: v for k, v in config_settings(found).items() if k != "loss.name"}
        flat = config_lib.flatten(config)
        other = [f"{k}={v!r}" for k, v in wanted.items() if not _serves(k, flat[k], v)]
        if other:
            raise UserError(f"{spec} has other heads; write {', '.join(other)}")
        scale, most = float(np.exp(found.log_scale)), config.loss.scale_max
        if config.loss.learn_scale and scale > most * (1 + 1e-5):
            raise UserError(
                f"{spec} has a scale of {scale:g}; write loss.scale_max of that or more"
            )
        return install(trainable, found, spec)
    except UserError as error:
        raise UserError(f"config.start.model: {error}") from error


def _serves(key: str, value: Any, wanted: Any) -> bool:
    """Whether a config's value makes a model that `wanted` fits into."""
    if key == "image.pooling" and "own" in (value, wanted):
        return True
    if key.endswith(".tune"):
        return tune.parse(value).parts >= tune.parse(wanted).parts
    return value == wanted


def config_settings(found: Aligned) -> dict[str, Any]:
    """The config keys that make the heads and the loss of a finished model."""
    settings: dict[str, Any] = {"image.standardize": False, "image.pooling": found.image.pooling}
    settings["text.pooling"] = found.text.pooling
    for side, top in (("image", found.image), ("text", found.text)):
        settings |= {f"{side}.head.{key}": value for key, value in _head(top).items()}
        if top.adapters:
            settings |= {f"{side}.tune": "adapter", "peft.adapter_reduction": _reduction(top)}
    if found.image.projection is not None:
        settings["embed"] = found.image.projection[0].shape[1]
    if found.bias is not None:
        settings["loss.name"] = "sigmoid"
    return settings


def _reduction(top: Top) -> int:
    """How many times narrower than the tower its adapters are."""
    width, hidden = next(v for k, v in top.adapters.items() if k.endswith("down/kernel")).shape[1:]
    return width // max(hidden, 1)


def _head(top: Top) -> dict[str, Any]:
    if top.pooler is not None:
        width = top.pooler[0].shape[1]
        own = 0 if width == top.pooler[0].shape[0] else width
        return {"name": "pooled_mlp", "depth": 2, "activation": top.activation, "width": own}
    return {"name": "identity" if top.projection is None else "linear"}


def install(trainable: PyTree, found: Aligned, spec: str) -> PyTree:
    """Fresh heads and scale replaced by those of a finished model.

    Args:
      trainable: as `Model.init` gives it.
      found: the finished model.
      spec: what it was read from, for messages.

    Raises:
      UserError: naming the side, where a head is of another shape.
    """
    filled = dict(trainable)
    for side, top in (("image", found.image), ("text", found.text)):
        heads, tower = (flatten(trainable.get(f"{side}_{k}", {})) for k in ("head", "tower"))
        own = flatten(_params(top))
        _check_same(f"{spec}: the {side} head", heads, own)
        if own:
            filled[f"{side}_head"] = _tree(own)
        if top.adapters:
            fresh = {name: leaf for name, leaf in tower.items() if "/adapter/" in name}
            _check_same(f"{spec}: the adapters of the {side} tower", fresh, top.adapters)
            filled[f"{side}_tower"] = _tree({**tower, **top.adapters})
    logits = {"log_scale": jnp.asarray(found.log_scale)}
    if found.bias is not None:
        logits["bias"] = jnp.asarray(found.bias)
    if "loss" in trainable:
        filled["loss"] = {k: logits.get(k, leaf) for k, leaf in trainable["loss"].items()}
    return filled


def _check_same(what: str, fresh: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    shapes = [{name: leaf.shape for name, leaf in tree.items()} for tree in (fresh, own)]
    if shapes[0] != shapes[1]:
        described = ["; ".join(f"{n} {list(s)}" for n, s in sorted(t.items())) for t in shapes]
        raise UserError(
            f"{what} should be ({described[0] or 'none'}) for these towers, found "
            f"({described[1] or 'none'}); name the towers and heads of one model"
        )


def _tree(leaves: Mapping[str, Any]) -> PyTree:
    arrays = {name: jnp.asarray(leaf, jnp.float32) for name, leaf in leaves.items()}
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def _params(top: Top) -> dict[str, Any]:
    """The parameters of the head that `_head` names."""
    if top.projection is None:
        return {}
    if top.pooler is None:
        return {"projection": _dense(*top.projection)}
    return {"dense_0": _dense(*top.pooler), "dense_1": _dense(*top.projection)}


def _dense(kernel: Float32[np.ndarray, "i o"], bias: Float32[np.ndarray, " o"] | None) -> PyTree:
    return {
        "kernel": kernel,
        "bias": np.zeros(kernel.shape[1], np.float32) if bias is None else bias,
    }
