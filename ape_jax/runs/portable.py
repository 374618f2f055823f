"""Writes a work directory with its towers in it, for `ape_jax.load` on a machine without them.

It is a run's directory with one checkpoint, without the optimizer's state, and with the towers'
files under `towers/image` and `towers/text`. Specs and hashes stay as they were: the towers it
brings are held to the same hashes as those it was trained on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import jax.numpy as jnp

from ape_jax import config as config_lib
from ape_jax.config.outside import is_torch
from ape_jax.runs import build
from ape_jax.runs.aligned import AlignedModel
from ape_jax.runs.checkpoints.checkpoint import Checkpoints
from ape_jax.runs.checkpoints.state import State
from ape_jax.runs.directory import workdir
from ape_jax.storage import atomic
from ape_jax.towers.files import hub, sentence, sources
from ape_jax.towers.text import big_vision as big_vision_text
from ape_jax.towers.torch import folders as torch_folders

# Beside weights, configs and tokenizers: what must stay with the weights.
_FILES = (*hub.FILES, "*_Pooling/config.json", "NOTICE*", "LICENSE*", "LICENCE*")


def write(directory: Path, aligned: AlignedModel) -> None:
    """Fills an empty directory.

    Args:
      directory: where.
      aligned: a run's model, with the run's own config and summary.

    Raises:
      UserError: where a tower's files are gone, or the disk is full.
    """
    config = aligned.config
    for side in ("image", "text"):
        tower, to = config.side(side), directory / build.TOWERS / side
        if is_torch(tower.tower):
            torch_folders.bring(tower.tower, to, code=tower.trust_remote_code)
        else:
            _bring(sources.resolve(tower.tower), to)
    state = State(
        step=jnp.int32(aligned.step),
        trainable=aligned.trainable,
        opt_state=(),
        average=aligned.trainable if config.optim.ema > 0 else None,
    )
    checkpoints = Checkpoints(directory, config.train.keep)
    checkpoints.save(state, aligned.statistics, aligned.meta)
    checkpoints.close()
    atomic.write_json(directory / "config.json", config_lib.flatten(config))
    workdir.write_summary(directory, aligned.summary)


def _bring(source: Path, to: Path) -> None:
    if source.is_file():
        to.parent.mkdir(parents=True, exist_ok=True)
        copy = to.with_name(to.name + source.suffix)
        shutil.copyfile(source, copy)
        files, copies = big_vision_text.beside(source), big_vision_text.beside(copy)
        for kind, file in files.items():
            if file.is_file():
                shutil.copyfile(file, copies[kind])
        return
    folders = [source, *(source / name for name in sentence.folders(source))]
    for file in sorted({f for folder in folders for p in _FILES for f in folder.glob(p)}):
        if file.is_file():
            copy = to / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
