"""Starting from another run (`start.run`): its trained parameters, with a fresh optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import PyTree

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.runs import build, provenance
from ape_jax.runs.aligned import LANGUAGES, STATISTICS, AlignedModel
from ape_jax.runs.checkpoints.checkpoint import Checkpoints
from ape_jax.runs.directory import workdir
from ape_jax.runs.outputs import text_pooling
from ape_jax.towers.tower import Tower

# What the trained parameters and the features under them depend on.
_SAME = (
    "method",
    "start.method",
    "start.weights",
    "embed",
    "image.tune",
    "text.tune",
    "image.layer",
    "text.layer",
    "image.pooling",
    "text.pooling",
    "image.standardize",
    "data.language",
    "loss.name",
    "loss.learn_scale",
)
_FREE = ("dropout",)  # Of a head: it may differ.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fork:
    """The run that another one starts from.

    Attributes:
      checkpoints: its checkpoints.
      averaged: whether the moving average of its parameters is taken, as in its evaluation.
      record: of the closed form that it started from, None if there is none.
    """

    checkpoints: Checkpoints
    averaged: bool
    record: Mapping[str, Any] | None

    def install(self, aligned: AlignedModel) -> AlignedModel:
        """The model with the run's trained parameters and feature statistics.

        Args:
          aligned: the model that is to be trained, with fresh parameters.

        Raises:
          UserError: its checkpoints are damaged.
        """

        def like(tree: PyTree) -> PyTree:
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
            )

        was, now = (x.get(LANGUAGES) for x in (self.checkpoints.meta, aligned.meta))
        if was != now:
            told = [", ".join(x["names"]) if x else "none" for x in (was, now)]
            raise UserError(
                f"config.start.run: {aligned.config.start.run} has means of the languages "
                f"({told[0]}), and the captions of data.pairs are in others ({told[1]}); give "
                "pairs in the same, or start from fresh parameters"
            )
        fixed = {k: v for k, v in aligned.frozen.items() if k == STATISTICS}
        try:
            trainable, fixed = self.checkpoints.restore_model(
                like(aligned.trainable), like(fixed), average=self.averaged
            )
        except UserError as error:
            raise _of_the_other(error) from error
        path, step = aligned.config.start.run, self.checkpoints.latest
        hosts.say(f"starting from {path}, which was trained for {step} steps")
        self.checkpoints.close()
        return dataclasses.replace(aligned, trainable=trainable, frozen={**aligned.frozen, **fixed})


def read(config: Config, towers: build.Towers) -> Fork:
    """The run of `start.run`, whose parameters fit this config's model.

    Args:
      config: the resolved config of the new run.
      towers: its towers.

    Raises:
      UserError: where there is no such run, or it is of other towers or heads.
    """
    try:
        path = workdir.locate(config.start.run)
        before = workdir.read_config(path)
        if not (path / "checkpoints").is_dir():
            raise UserError(f"{path} holds no checkpoint yet; wait for the first one")
        check_keys(before, config, towers.text)
        checkpoints = Checkpoints(path, before.train.keep)
        if checkpoints.latest is None:
            raise UserError(f"{path} holds no finished checkpoint; run its training again")
        if other := checkpoints.differs(provenance.meta(config, towers)):
            key, found, ours = other
            raise UserError(f"{path} was trained with another {key} ({found}), not with {ours}")
        provenance.check_settings(before, checkpoints.meta, str(path / "config.json"))
        record = checkpoints.solved
    except UserError as error:
        raise _of_the_other(error) from error
    return Fork(
        checkpoints=checkpoints,
        averaged=before.optim.ema > 0,
        record=record,
    )


def _of_the_other(error: UserError) -> UserError:
    return UserError(f"config.start.run: {str(error).removeprefix('--workdir: ')}")


def check_keys(before: Config, after: Config, text: Tower) -> None:
    """Raises UserError naming the keys that make other trained parameters.

    Args:
      before: config of the run that is started from.
      after: of the new one.
      text: the text tower.
    """
    was, wanted = config_lib.flatten(before), config_lib.flatten(after)
    if _pooled(before, text) == _pooled(after, text):  # "own" may be what the other one names.
        wanted["text.pooling"] = was["text.pooling"]
    other = [
        f"--config.{key}={value!r}"
        for key, value in was.items()
        if _shapes_the_model(key) and wanted[key] != value
    ]
    if other:
        raise UserError(
            f"{after.start.run} has other trained parameters; write {', '.join(other)}, or start "
            "from fresh ones"
        )


def _pooled(config: Config, text: Tower) -> tuple[str, str]:
    return text_pooling.output(config, text), text_pooling.pooling(config, text)


def _shapes_the_model(key: str) -> bool:
    group, _, name = key.rpartition(".")
    return key in _SAME or group == "peft" or (group.endswith(".head") and name not in _FREE)
