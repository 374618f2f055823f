"""Checkpoints: what was trained, the optimizer, the step, and the towers' names and hashes.

The towers themselves are not in it: they are pinned by digest and read from their own files. The
data position is the step, since order and draws are functions of (seed, step). The sha256 of every
array is in `meta`, and compared whenever one is read.
"""

from __future__ import annotations

import contextlib
import errno
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from ape_jax.align.heads.base import batch_norm
from ape_jax.errors import UserError
from ape_jax.runs import hashes
from ape_jax.runs.aligned import SOLVED
from ape_jax.runs.state import State

_STATE, _OPT, _FIXED, _META = "trainable", "opt_state", "fixed", "meta"
_HASHES = "sha256"  # In `meta`; checkpoints of earlier versions have none.
_AVERAGE = "average"  # Of the trained parameters; there only where one is kept.

BEST = "best"
"""Folder of the state that did best (`eval.keep`), beside `checkpoints`."""


class Checkpoints:
    """The checkpoints of one work directory.

    Args:
      workdir: the run's directory; checkpoints live in `workdir/checkpoints`.
      keep: how many of the newest are kept.
      clean: remove what saves that were killed have left; for whoever writes here.
      folder: `checkpoints`, or `BEST` for the state that did best.

    Raises:
      UserError: where there is a file in the place of the directory.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        keep: int = 2,
        clean: bool = False,
        folder: str = "checkpoints",
    ):
        self._path = workdir.absolute() / folder
        if self._path.exists() and not self._path.is_dir():
            raise UserError(f"--workdir: {self._path} is no directory; use a new work directory")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, cleanup_tmp_directories=clean
        )
        self._manager = ocp.CheckpointManager(
            self._path,
            options=options,
            item_names=(_STATE, _OPT, _FIXED, _AVERAGE, _META),
        )

    @property
    def latest(self) -> int | None:
        """The step of the newest finished checkpoint; one that was cut off does not count."""
        # The manager counts a save that it has only begun; a finished one has its own name.
        finished = (s for s in self._manager.all_steps() if (self._path / str(s)).is_dir())
        return max(finished, default=None)

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
        if step in self._manager.all_steps():
            return
        items = _items(state, fixed)
        meta = {**meta, _HASHES: hashes.of_trees(items)}
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        with self.disk_errors():
            # Forced: asked whether to save, the manager would ask JAX whether a notice to end has
            # come, and count its calls among those of `Preemption`.
            self._manager.save(
                step,
                args=ocp.args.Composite(**args, **{_META: ocp.args.JsonSave(meta)}),
                force=True,
            )

    def restore(self, like: State, fixed: PyTree) -> tuple[State, PyTree]:
        """The newest state, placed like the arrays of `like` and `fixed`."""
        items = _items(like, fixed)
        out = self._restore_trees(items)
        count = jax.device_put(np.asarray(self.latest, like.step.dtype), like.step.sharding)
        state = State(
            step=count,
            trainable=batch_norm.separated(out[_STATE]),
            opt_state=_unwrapped(out[_OPT], like.trainable) if _OPT in items else like.opt_state,
            average=batch_norm.separated(out[_AVERAGE]) if _AVERAGE in items else None,
        )
        return state, out[_FIXED]["fixed"]

    def restore_model(
        self, trainable: PyTree, fixed: PyTree, *, average: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Only what inference needs: the trained and the fixed parameters.

        Args:
          trainable: arrays like the trained parameters.
          fixed: arrays like the fixed ones.
          average: whether the moving average of the trained ones is wanted.
        """
        trained = _AVERAGE if average else _STATE
        items = {trained: batch_norm.joined(trainable), _FIXED: {"fixed": fixed}}
        out = self._restore_trees(items)
        return batch_norm.separated(out[trained]), out[_FIXED]["fixed"]

    @property
    def solved(self) -> Mapping[str, Any] | None:
        """The record of the closed form that the newest checkpoint's heads are or started from."""
        return None if self.latest is None else self.meta.get(SOLVED)

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the newest checkpoint says of itself, see `save`."""
        return self._restore(**{_META: ocp.args.JsonRestore()})[_META]

    def check(self, meta: Mapping[str, Any]) -> None:
        """Refuses checkpoints of other towers or pairs than `meta` names.

        Raises:
          UserError: naming what differs.
        """
        if other := self.differs(meta):
            key, found, ours = other
            raise UserError(
                f"--workdir: the checkpoints in {self._path} were made with another {key} "
                f"({found}), not with {ours}; use a new work directory"
            )

    def differs(self, meta: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
        """The first of `meta` that the newest checkpoint says otherwise: name, its value, ours."""
        if self.latest is None:
            return None
        found = self.meta
        for key, value in meta.items():
            if _identity(found.get(key)) != _identity(value):
                return key, found.get(key), value
        return None

    def _restore_trees(self, items: Mapping[str, PyTree]) -> Mapping[str, Any]:
        args = {name: ocp.args.StandardRestore(_abstract(tree)) for name, tree in items.items()}
        out, expected = self._restore(**args), self.meta.get(_HASHES)
        if expected is not None and (leaf := hashes.damaged(out, expected)) is not None:
            raise self._unreadable(f"{leaf} is damaged")
        return out

    def _restore(self, **args: Any) -> Mapping[str, Any]:
        """What a damaged checkpoint raises has a dozen types and a page of text."""
        try:
            return self._manager.restore(self.latest, args=ocp.args.Composite(**args))
        except Exception as error:
            raise self._unreadable(type(error).__name__) from error

    def _unreadable(self, reason: str) -> UserError:
        step = self.latest
        older = [s for s in self._manager.all_steps() if step is None or s < step]
        left = f"it goes on from step {max(older)}" if older else "it starts anew"
        return UserError(
            f"--workdir: the checkpoint {self._path / str(step)} cannot be read ({reason}); delete "
            f"it and run the same command again: {left}"
        )

    def wait(self) -> None:
        """Blocks until the last save is on disk."""
        with self.disk_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes the last save and lets the directory go."""
        self.wait()
        self._manager.close()

    @contextlib.contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Turns "no space left", which TensorStore reports as text, into the user's sentence."""
        try:
            yield
        except Exception as error:
            if isinstance(error, UserError) or not _is_disk_full(error):
                raise
            raise UserError(
                f"--workdir: no space left on the disk of {self._path.parent}; the last good "
                f"checkpoint is step {self.latest}; free some space and run the same command"
            ) from error


def _identity(value: Any) -> Any:
    """What a thing is, whatever path it lies under: its digest, where it has one."""
    return value.get("digest", value) if isinstance(value, Mapping) else value


def _is_disk_full(error: BaseException | None) -> bool:
    """Looks along the chain: a full disk shows first in one place and then in others."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "quota exceeded" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _items(state: State, fixed: PyTree) -> dict[str, PyTree]:
    """The trees that a checkpoint holds of a state."""
    items = {_STATE: batch_norm.joined(state.trainable), _FIXED: {"fixed": fixed}}
    if jax.tree.leaves(state.opt_state):  # What is not trained has none.
        items[_OPT] = _wrapped(state.opt_state, state.trainable)
    if state.average is not None:
        items[_AVERAGE] = batch_norm.joined(state.average)
    return items


def _wrapped(opt_state: PyTree, trainable: PyTree) -> PyTree:
    """The optimizer's state as it lies on disk.

    Running statistics were once parameters with an optimizer of their own; checkpoints keep that
    form, so that those written before open.
    """
    if batch_norm.STATS not in trainable:
        return opt_state
    stats = jax.tree.map(lambda _: optax.MaskedNode(), batch_norm.parted(trainable)[1])
    opt_state = _map_trees(lambda tree: batch_norm.joined(tree | stats), opt_state)
    learned, running = optax.MaskedState(opt_state), optax.MaskedState((optax.EmptyState(),) * 2)
    return optax.transforms.PartitionState({"learned": learned, "running": running})


def _unwrapped(opt_state: PyTree, trainable: PyTree) -> PyTree:
    """Inverse of `_wrapped`."""
    if batch_norm.STATS not in trainable:
        return opt_state
    opt_state = opt_state.inner_states["learned"].inner_state
    return _map_trees(lambda tree: batch_norm.parted(batch_norm.separated(tree))[0], opt_state)


def _map_trees(of: Callable[[dict[str, PyTree]], PyTree], opt_state: PyTree) -> PyTree:
    """Maps the trees of an optimizer's state that are like the trained parameters."""
    return jax.tree.map(
        lambda x: of(x) if isinstance(x, dict) else x,
        opt_state,
        is_leaf=lambda x: isinstance(x, dict),
    )


def _abstract(tree: PyTree) -> PyTree:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
