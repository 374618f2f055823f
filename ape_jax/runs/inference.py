"""Using what was trained: `load` a work directory, or a finished model, and embed with it."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from ape_jax import config as config_lib
from ape_jax import search
from ape_jax.align import heads
from ape_jax.align.model import Model
from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build, imported, provenance, workdir
from ape_jax.runs.aligner import Aligner
from ape_jax.runs.checkpoint import SOLVED, Checkpoints
from ape_jax.runs.embed import Embedder
from ape_jax.towers import aligned


def load(directory: str | os.PathLike[str]) -> Aligner:
    """Loads a model: one that was trained here, or a finished one.

    Args:
      directory: a work directory, of which the newest checkpoint is taken, or one exported as
        `jax`; or a finished two-tower model, as a directory of transformers, `hf:org/name[@rev]` or
        a big_vision .npz (`towers.aligned`).

    Raises:
      UserError: where there is no run, checkpoint or model, a file is damaged, or a tower is no
        longer the one that the head was trained on.
    """
    run = restore(directory)
    return run.aligner(run.model, run.trainable, run.frozen)


def towers_before_and_after(
    directory: str | os.PathLike[str],
) -> tuple[Aligner, Aligner, PyTree, PyTree]:
    """The two towers of a run without heads, as pretraining left them and as they are now.

    Args:
      directory: of the run.

    Returns:
      Two that encode to the towers' own pooled features, before and after; what is trained, before
      and after.

    Raises:
      UserError: as `load`.
    """
    if aligned.is_model(os.fspath(directory)):
        raise UserError(
            f"--workdir: {directory} is a finished model, of which nothing says what its towers "
            "were before; name the directory of a run"
        )
    run = restore(directory)
    image, text = run.model.image, run.model.text
    kept = "mean" if image.pooling == "none" else image.pooling
    pooled = heads.OnPooledText(heads.Identity(), text.tower.config, run.config.text.pooling)
    after = dataclasses.replace(
        run.model,
        image=dataclasses.replace(image, head=heads.Identity(), pooling=kept),
        text=dataclasses.replace(text, head=pooled),
        standardize=False,
    )
    before = dataclasses.replace(
        after,
        image=dataclasses.replace(after.image, tune="frozen"),
        text=dataclasses.replace(after.text, tune="frozen"),
    )
    towers = build.load_towers(run.config, run.path / build.TOWERS).params
    start, frozen = before.init(run.config.seed, towers)
    frozen = mesh_lib.place_frozen(frozen, run.mesh, run.config.mesh.shard_min_size)
    return (
        run.aligner(before, start, frozen),
        run.aligner(after, run.trainable, run.frozen),
        run.model.init(run.config.seed, towers)[0],
        run.trainable,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
    """A run as its newest checkpoint has it, on the devices of `mesh`.

    Attributes:
      trainable: the trained parameters; their moving average, where one was kept.
      frozen: the others, statistics included.
      meta: what the checkpoint says of itself (`Checkpoints.save`).
      unread: of a finished model, tensors of its file that no output depends on.
    """

    path: pathlib.Path
    config: Config
    model: Model
    mesh: Mesh
    trainable: PyTree
    frozen: PyTree
    step: int
    meta: Mapping[str, Any]
    unread: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def identity(self) -> dict[str, str]:
        """What an index remembers of the model, by hash."""
        return search.identity(self.meta, self.trainable, self.frozen.get("statistics", {}))

    def aligner(self, model: Model, trainable: PyTree, frozen: PyTree) -> Aligner:
        """One that encodes with this model in the place of the run's own."""
        scale, bias = model.logit_scale(trainable, frozen)
        return Aligner(
            self.config,
            trainable,
            frozen,
            Embedder(model, self.mesh, self.config.eval.batch),
            self.model.image.tower.prepare.transform,
            self.model.text.tower.prepare,
            float(scale),
            None if bias is None else float(bias),
        )


def restore(
    directory: str | os.PathLike[str], settings: Mapping[str, Any] | None = None
) -> Restored:
    """A run's newest checkpoint on the towers that it was trained on, or a finished model.

    Args:
      directory: as `load`.
      settings: config keys to set otherwise, such as `{"image.dtype": "float32"}`; none that the
        trained parameters depend on.

    Raises:
      UserError: as `load`.
    """
    if aligned.is_model(os.fspath(directory)):
        return _finished(os.fspath(directory), settings)
    path = workdir.locate(directory)
    config = workdir.read_config(path)
    if settings:
        config = config_lib.resolve({**config_lib.flatten(config), **settings})
    # Opening would create the folder; a directory that is only read stays as it is.
    if not (path / "checkpoints").is_dir():
        raise UserError(f"{path} holds no checkpoint yet; train first, or wait for the first one")
    checkpoints = Checkpoints(path, config.train.keep)
    if checkpoints.latest is None:
        raise UserError(f"{path} holds no finished checkpoint yet; run the training again")
    towers = build.load_towers(config, path / build.TOWERS)
    checkpoints.check(provenance.meta(config, towers))
    mesh = mesh_lib.make_mesh()
    step, meta = checkpoints.latest, checkpoints.meta
    model = build.make_model(config, towers, meta.get(SOLVED))
    trainable, frozen = model.init(config.seed, towers.params)
    frozen = mesh_lib.place_frozen(frozen, mesh, config.mesh.shard_min_size)
    trainable = mesh_lib.place_replicated(trainable, mesh)
    fixed = mesh_lib.place_replicated({k: v for k, v in frozen.items() if k == "statistics"}, mesh)
    averaged = config.optim.ema > 0
    trainable, fixed = checkpoints.restore_model(trainable, fixed, average=averaged)
    checkpoints.close()
    return Restored(
        path=path,
        config=config,
        model=model,
        mesh=mesh,
        trainable=trainable,
        frozen={**frozen, **fixed},
        step=step,
        meta=meta,
    )


def _finished(spec: str, settings: Mapping[str, Any] | None) -> Restored:
    found = imported.load(spec, settings)
    mesh = mesh_lib.make_mesh()
    return Restored(
        path=pathlib.Path(spec),
        config=found.config,
        model=found.model,
        mesh=mesh,
        trainable=mesh_lib.place_replicated(found.trainable, mesh),
        frozen=mesh_lib.place_frozen(found.frozen, mesh, found.config.mesh.shard_min_size),
        step=0,
        meta=provenance.meta(found.config, found.towers),
        unread=found.unread,
    )
