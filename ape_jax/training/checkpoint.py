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

    Raises:
      UserError: where there is a file in the place of the directory.
    """

    def __init__(self, workdir: pathlib.Path, keep: int = 2):
        self._path = workdir.absolute() / "checkpoints"
        if self._path.exists() and not self._path.is_dir():
            raise UserError(f"--workdir: {self._path} is no directory; use a new work directory")
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(
            self._path,
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
        out = self._restore(**args)
        count = jax.device_put(np.asarray(self.latest, like.step.dtype), like.step.sharding)
        state = State(step=count, trainable=out[_STATE], opt_state=out[_OPT])
        return state, out[_FIXED]["fixed"]

    def restore_model(self, trainable: PyTree, fixed: PyTree) -> tuple[PyTree, PyTree]:
        """Only what inference needs: the trained and the fixed parameters."""
        items = {_STATE: trainable, _FIXED: {"fixed": fixed}}
        args = {name: ocp.args.StandardRestore(_abstract(tree)) for name, tree in items.items()}
        out = self._restore(**args)
        return out[_STATE], out[_FIXED]["fixed"]

    def check(self, meta: Mapping[str, Any]) -> None:
        """Refuses checkpoints of other towers or pairs than `meta` names.

        Raises:
          UserError: naming what differs.
        """
        if self.latest is None:
            return
        found = self._restore(**{_META: ocp.args.JsonRestore()})[_META]
        for key, value in meta.items():
            if found.get(key) != value:
                raise UserError(
                    f"--workdir: the checkpoints in {self._path} were made with another {key} "
                    f"({found.get(key)}), not with {value}; use a new work directory"
                )

    def _restore(self, **args: Any) -> Mapping[str, Any]:
        """What a damaged checkpoint raises has a dozen types and a page of text."""
        step = self.latest
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:
            older = [s for s in self._manager.all_steps() if s < step]
            left = f"it goes on from step {max(older)}" if older else "it starts anew"
            raise UserError(
                f"--workdir: the checkpoint {self._path / str(step)} cannot be read "
                f"({type(error).__name__}); delete it and run the same command again: {left}"
            ) from error

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


def _abstract(tree: PyTree) -> PyTree:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
