"""Restores an aligned model: a work directory's newest checkpoint, or a finished model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from ape_jax import config as config_lib
from ape_jax.align import heads
from ape_jax.align.languages import Languages
from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build, imported, provenance, size
from ape_jax.runs.aligned import LANGUAGES, STATISTICS, AlignedModel
from ape_jax.runs.checkpoints import agreed
from ape_jax.runs.checkpoints.checkpoint import BEST, Checkpoints
from ape_jax.runs.checkpoints.records import NoneWhole
from ape_jax.runs.directory import workdir
from ape_jax.runs.outputs import text_pooling
from ape_jax.storage import checksums
from ape_jax.towers import aligned


def restore(
    directory: str | os.PathLike[str], settings: Mapping[str, Any] | None = None
) -> AlignedModel:
    """A run's newest checkpoint on the towers that it was trained on, or a finished model.

    With `eval.keep='best'` it is the run's best state. Where that, or the newest checkpoint, is
    damaged, the one before it is used, and a line on stderr says so.

    Args:
      directory: a work directory, or one exported as `jax`; or a finished two-tower model, as a
        directory of transformers, `hf:org/name[@rev]` or a big_vision .npz (`towers.aligned`).
      settings: config keys to set otherwise, such as `{"image.dtype": "float32"}`; none that the
        trained parameters depend on.

    Raises:
      UserError: where there is no run, checkpoint or model, a file is damaged, or a tower is no
        longer the one that the head was trained on.
    """
    if aligned.is_model(os.fspath(directory)):
        model = imported.load(directory, settings)
        agreed.on_towers(model.meta, model.model.text.tower.prepare)
        return model
    path = workdir.locate(directory)
    checksums.check(path)  # Of an export.
    recorded = workdir.read_config(path)
    config = recorded
    if settings:
        config = config_lib.resolve({**config_lib.flatten(config), **settings})
    # Opening would create the folder; a directory that is only read stays as it is.
    if not (path / "checkpoints").is_dir():
        raise UserError(f"{path} holds no checkpoint yet; train first, or wait for the first one")
    towers = None
    if config.eval.keep == "best":
        if (path / BEST).is_dir():
            towers = build.load_towers(config, path / build.TOWERS)
            try:
                return _restored(path, recorded, config, towers, BEST)
            except NoneWhole as error:
                hosts.say(f"{error}; the newest checkpoint is used instead of the best state")
        elif not (path / build.TOWERS).is_dir():  # An export brings only the state that is used.
            hosts.say(f"{path} has no folder {BEST!r} with the best state; the newest is used")
    towers = towers or build.load_towers(config, path / build.TOWERS)
    return _restored(path, recorded, config, towers, "checkpoints")


def _restored(
    path: Path, recorded: Config, config: Config, towers: build.Towers, folder: str
) -> AlignedModel:
    """The newest state of a folder of checkpoints.

    Args:
      path: the work directory.
      recorded: its own config.
      config: that of the model that is wanted.
      towers: of the model.
      folder: of the checkpoints.
    """
    checkpoints = Checkpoints(path, config.train.keep, folder=folder)
    if checkpoints.latest is None:
        raise UserError(f"{path} holds no finished checkpoint yet; run the training again")
    agreed.on_config(config)
    agreed.on_towers(provenance.meta(config, towers), towers.text.prepare)
    agreed.on_workdir(newest_checkpoint=checkpoints.latest)
    checkpoints.check(provenance.meta(config, towers))
    provenance.check_settings(recorded, checkpoints.meta, str(path / "config.json"))
    mesh = mesh_lib.make_mesh()
    model = build.make_model(config, towers, checkpoints.solved)
    known = Languages.of(checkpoints.meta.get(LANGUAGES))
    model = dataclasses.replace(model, languages=known)
    fresh, frozen = size.initial(config, model, towers.params, mesh)
    trainable, fixed = (
        jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=mesh_lib.replicated(mesh)),
            tree,
        )
        for tree in (fresh, {k: v for k, v in frozen.items() if k == STATISTICS})
    )
    averaged = config.optim.ema > 0
    trainable, fixed = checkpoints.restore_model(trainable, fixed, average=averaged)
    step, meta = checkpoints.latest, checkpoints.meta  # Of the one that proved whole.
    assert step is not None
    checkpoints.close()
    frozen = mesh_lib.place_frozen({**frozen, **fixed}, mesh, config.mesh.shard_min_size)
    return AlignedModel(
        config=config,
        model=model,
        trainable=trainable,
        frozen=frozen,
        meta=meta,
        mesh=mesh,
        step=step,
        source=str(path),
    )


def before_and_after(
    directory: str | os.PathLike[str],
) -> tuple[AlignedModel, AlignedModel, PyTree]:
    """The two towers of a run without heads, as pretraining left them and as they are now.

    Args:
      directory: of the run.

    Returns:
      Two that encode to the towers' own pooled features, before and after; and what the trained
      parameters of the second were before the first step.

    Raises:
      UserError: as `restore`.
    """
    if aligned.is_model(os.fspath(directory)):
        raise UserError(
            f"--workdir: {directory} is a finished model, of which nothing says what its towers "
            "were before; name the directory of a run"
        )
    run = restore(directory)
    image, text = run.model.image, run.model.text
    kept = "mean" if image.pooling == "none" else image.pooling
    pooling = text_pooling.pooling(run.config, text.tower)
    pooled = heads.OnPooledText(heads.Identity(), text.tower.config, pooling)
    after = dataclasses.replace(
        run.model,
        image=dataclasses.replace(image, head=heads.Identity(), pooling=kept),
        text=dataclasses.replace(text, head=pooled),
        standardize=False,
        weights=0,
        languages=None,
        dim=0,
    )
    before = dataclasses.replace(
        after,
        image=dataclasses.replace(after.image, tune="frozen"),
        text=dataclasses.replace(after.text, tune="frozen"),
    )
    towers = build.load_towers(run.config, Path(run.source) / build.TOWERS).params
    trainable, frozen = size.initial(run.config, before, towers, run.mesh)
    frozen = mesh_lib.place_frozen(frozen, run.mesh, run.config.mesh.shard_min_size)
    return (
        dataclasses.replace(run, model=before, trainable=trainable, frozen=frozen),
        dataclasses.replace(run, model=after),
        size.initial(run.config, run.model, towers, run.mesh)[0],
    )
