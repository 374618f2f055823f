"""Checkpoints: what was trained, the optimizer, the step, and the towers' names and hashes.

The towers themselves are not in it: they are pinned by digest and read from their own files. The
data position is the step, since order and draws are functions of (seed, step).
"""

from __future__ import annotations

import errno
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from ape_jax.errors import UserError
from ape_jax.training.step import State

_STATE, _OPT, _FIXED, _META = "trainable", "opt_state", "fixed", "meta"


class Checkpoints:
    """The checkpoints of one work directory.

    Args:
      workdir: the run's directory; checkpoints live in `workdir/checkpoints`.
      keep: how many of the newest are kept.
    """

    def __init__(self, workdir: pathlib.Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(
            (workdir / "checkpoints").absolute(),
            options=options,
            item_names=(_STATE, _OPT, _FIXED, _META),
        )

    @property
    def latest(self) -> int | None:
        """The step of the newest finished checkpoint; one that was cut off does not count."""
        return self._manager.latest_step()

    def save(self, state: State, fixed: PyTree, meta: Mapping[str, Any]) -> None:
        """Writes in the background; a save that is killed leaves the previous one the latest.

        Args:
          state: the training state.
          fixed: untrained parameters that belong to the model (the feature statistics).
          meta: JSON: towers and data by name and hash.

        Raises:
          UserError: when the disk is full.
        """
        step = int(state.step)
        if step == self.latest:
            return
        items = {_STATE: state.trainable, _OPT: state.opt_state, _FIXED: {"fixed": fixed}}
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        with self._disk_errors():
            self._manager.save(
                step, args=ocp.args.Composite(**args, **{_META: ocp.args.JsonSave(dict(meta))})
            )

    def restore(self, like: State, fixed: PyTree) -> tuple[State, PyTree]:
        """The newest state, placed like the arrays of `like` and `fixed`."""
        items = {_STATE: like.trainable, _OPT: like.opt_state, _FIXED: {"fixed": fixed}}
        args = {name: ocp.args.StandardRestore(_abstract(tree)) for name, tree in items.items()}
        step = self.latest
        out = self._manager.restore(step, args=ocp.args.Composite(**args))
        count = jax.device_put(np.asarray(step, like.step.dtype), like.step.sharding)
        state = State(step=count, trainable=out[_STATE], opt_state=out[_OPT])
        return state, out[_FIXED]["fixed"]

    def restore_model(self, trainable: PyTree, fixed: PyTree) -> tuple[PyTree, PyTree]:
        """Only what inference needs: the trained and the fixed parameters."""
        items = {_STATE: trainable, _FIXED: {"fixed": fixed}}
        args = {name: ocp.args.StandardRestore(_abstract(tree)) for name, tree in items.items()}
        out = self._manager.restore(self.latest, args=ocp.args.Composite(**args))
        return out[_STATE], out[_FIXED]["fixed"]

    def meta(self) -> dict[str, Any]:
        """The newest checkpoint's names and hashes."""
        args = ocp.args.Composite(**{_META: ocp.args.JsonRestore()})
        return self._manager.restore(self.latest, args=args)[_META]

    def wait(self) -> None:
        """Blocks until the last save is on disk."""
        with self._disk_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes the last save and lets the directory go."""
        self.wait()
        self._manager.close()

    def _disk_errors(self) -> _DiskErrors:
        return _DiskErrors(self)


class _DiskErrors:
    """Turns "no space left", which TensorStore reports as text, into the user's sentence."""

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left on device" in str(error) or "quota exceeded" in str(error):
            raise UserError(
                "--workdir: no space left on the disk while writing a checkpoint; the last good "
                f"one is step {self._checkpoints.latest}; free some space and run the same command"
            ) from error


def check_meta(
    found: Mapping[str, Any], expected: Mapping[str, Any], workdir: pathlib.Path
) -> None:
    """Refuses a checkpoint of other towers or pairs.

    Raises:
      UserError: naming what differs.
    """
    for key, value in expected.items():
        if found.get(key) != value:
            raise UserError(
                f"--workdir: the checkpoints in {workdir} were made with another {key} "
                f"({found.get(key)}), not with {value}; use a new work directory"
            )


def _abstract(tree: PyTree) -> PyTree:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
