"""Checkpoints: what was trained, the optimizer, the step, and the towers' names and hashes.

The towers themselves are not in it: they are pinned by digest and read from their own files. The
data position is the step, since order and draws are functions of (seed, step).

The sha256 of every array is in `meta`, which is sealed, and compared whenever one is read. Where
the newest checkpoint is damaged, the one before it is used, and a line says so. A run that goes on
moves the damaged one to `checkpoints.damaged`, so that its step can be saved again.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from ape_jax.align.heads.base import batch_norm
from ape_jax.align.subwords import SUBWORDS
from ape_jax.align.unpaired import TEACHER
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.runs.aligned import SOLVED
from ape_jax.runs.checkpoints import agreed, folders, hashes, records, saving, trees
from ape_jax.runs.checkpoints.records import Damaged, NoneWhole, Unreadable
from ape_jax.runs.checkpoints.state import State
from ape_jax.runs.checkpoints.trees import (
    AVERAGE,
    FIXED,
    OPT_STATE,
    TRAINABLE,
    abstract,
)
from ape_jax.storage import disk

T = TypeVar("T")
_META = "meta"

BEST = "best"
"""Folder of the state that did best (`eval.keep`), beside `checkpoints`."""


class Checkpoints:
    """The checkpoints of one work directory.

    Args:
      workdir: the run's directory; checkpoints live in `workdir/checkpoints`.
      keep: how many of the newest are kept.
      clean: remove what saves that were killed have left, and put damaged ones aside; for whoever
        writes here.
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
        self._path, self._writes = workdir.absolute() / folder, clean
        if self._path.exists() and not self._path.is_dir():
            raise UserError(f"--workdir: {self._path} is no directory; use a new work directory")
        durable = ocp.AsyncOptions(post_finalization_callback=lambda: folders.sync(self._path))
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, cleanup_tmp_directories=clean, async_options=durable
        )
        with disk.write_errors(f"--workdir: {self._path}"):
            self._manager = ocp.CheckpointManager(
                self._path,
                options=options,
                item_names=(TRAINABLE, OPT_STATE, FIXED, AVERAGE, TEACHER, SUBWORDS, _META),
            )
        self._place = saving.Place(self._path.parent, folder)
        # What was found of steps that cannot be used, and those of which a line has told.
        self._damaged: dict[int, str] = {}
        self._said: set[int] = set()
        self._unsynced = False
        folders.say_strangers(self._path)

    @property
    def latest(self) -> int | None:
        """The step of the newest finished checkpoint that is not known to be damaged.

        One that was cut off does not count.
        """
        # The manager counts a save that it has only begun; a finished one has its own name.
        steps = (step for step in self._manager.all_steps() if step not in self._damaged)
        return max((step for step in steps if self._of(step).is_dir()), default=None)

    def save(self, state: State, fixed: PyTree, meta: Mapping[str, Any]) -> None:
        """Writes in the background; a save that is killed leaves the previous one the latest.

        Args:
          state: the training state.
          fixed: untrained parameters that belong to the model (the feature statistics).
          meta: JSON: towers and data by name and hash.

        Raises:
          UserError: the disk is full, or the directory gone or read-only.
        """
        saving.quiet()
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = trees.of_state(state, fixed)
        found = hashes.of_trees(items)
        agreed.on_state(step, found, self.latest)
        packed = records.pack(meta, found, step)
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self.wait()
        self._unsynced = True
        self._place.check()
        with self._place.errors(lambda: self.latest, saves=True):
            # Forced: asked whether to save, the manager would ask JAX whether a notice to end has
            # come, and count its calls among those of `Preemption`.
            self._manager.save(
                step,
                args=ocp.args.Composite(**args, **{_META: ocp.args.JsonSave(packed)}),
                force=True,
            )

    def restore(self, like: State, fixed: PyTree) -> tuple[State, PyTree]:
        """The newest state, placed like the arrays of `like` and `fixed`.

        Raises:
          UserError: no checkpoint is without damage, or one cannot be read.
        """
        found = self._restore_trees(trees.of_state(like, fixed))
        count = jax.device_put(np.asarray(self.latest, like.step.dtype), like.step.sharding)
        return trees.to_state(found, count, like)

    def restore_model(
        self, trainable: PyTree, fixed: PyTree, *, average: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Only what inference needs: the trained and the fixed parameters.

        Args:
          trainable: arrays like the trained parameters.
          fixed: arrays like the fixed ones.
          average: whether the moving average of the trained ones is wanted.

        Raises:
          UserError: as `restore`.
        """
        trained = AVERAGE if average else TRAINABLE
        found = self._restore_trees(
            {trained: batch_norm.joined(trainable), FIXED: {"fixed": fixed}}
        )
        return batch_norm.separated(found[trained]), found[FIXED]["fixed"]

    @property
    def solved(self) -> Mapping[str, Any] | None:
        """The record of the closed form that the newest checkpoint's heads are or started from."""
        return None if self.latest is None else self.meta.get(SOLVED)

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the newest checkpoint says of itself, see `save`.

        Raises:
          UserError: as `restore`.
        """
        return self._newest(lambda step: self._read_meta(step)[0])

    def check(self, meta: Mapping[str, Any]) -> None:
        """Refuses checkpoints of other towers or pairs than `meta` names.

        Raises:
          UserError: naming what differs; as `restore`.
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

    def _newest(self, read: Callable[[int], T]) -> T:
        """What is read of the newest checkpoint that proves whole; those that do not are named."""
        while (step := self.latest) is not None:
            damage, found = "", None
            try:
                found = [read(step)]
            except Damaged as error:
                damage = str(error)
            if hosts.any_of(bool(damage)):
                if hosts.any_of(self._of(step).is_dir()):
                    self._damaged[step] = damage or "another process cannot read it"
                else:  # The run that writes here has removed it meanwhile.
                    self._manager.reload()
                continue
            assert found is not None
            self._tell(step)
            return found[0]
        raise NoneWhole(self._none_is_whole())

    def _tell(self, used: int) -> None:
        """Says which checkpoints are damaged and which is used; whoever writes puts them aside."""
        new = sorted(self._damaged.keys() - self._said, reverse=True)
        self._said.update(new)
        for step in new:
            where = self._of(step)
            aside = folders.put_aside(where) if self._writes else None
            then = f"step {used} is used"
            if aside:
                then = f"it is moved to {aside}, and the run goes on from step {used}"
            hosts.say(f"the checkpoint {where} is damaged ({self._damaged[step]}); {then}")
        if new and self._writes:
            self._manager.reload()

    def _none_is_whole(self) -> str:
        if not self._damaged:
            return f"--workdir: {self._path} holds no finished checkpoint"
        found = "; ".join(f"{step}: {why}" for step, why in sorted(self._damaged.items()))
        every = "the only checkpoint" if len(self._damaged) == 1 else "every checkpoint"
        anew = "starts anew"
        if self._path.name == BEST:
            anew = "goes on, and keeps the best state from there on"
        return (
            f"--workdir: {every} in {self._path} is damaged ({found}); put it back from a copy, or "
            f"delete {self._path} and run the training again, which {anew}"
        )

    def _restore_trees(self, items: Mapping[str, PyTree]) -> dict[str, Any]:
        args = {name: ocp.args.StandardRestore(abstract(tree)) for name, tree in items.items()}

        def read(step: int) -> dict[str, Any]:
            expected = self._read_meta(step)[1]
            out = self._restore(step, **args)
            if expected is None:
                self._say_unguarded(step)
            elif (leaf := hashes.damaged(out, expected)) is not None:
                raise Damaged(f"{leaf} has other values than were saved")
            return out

        return self._newest(read)

    def _read_meta(self, step: int) -> tuple[dict[str, Any], hashes.Hashes | None]:
        found = self._restore(step, **{_META: ocp.args.JsonRestore()})[_META]
        return records.unpack(found, step)

    def _restore(self, step: int, **args: Any) -> dict[str, Any]:
        """What a damaged checkpoint raises has a dozen types and a page of text."""
        if missing := [name for name in args if not (self._of(step) / name).is_dir()]:
            raise Damaged(f"{missing[0]} is missing")
        try:
            return dict(self._manager.restore(step, args=ocp.args.Composite(**args)))
        except Exception as error:
            if why := folders.no_damage(error):
                raise Unreadable(f"--workdir: {self._of(step)} cannot be read ({why})") from error
            raise Damaged(f"{type(error).__name__} in {', '.join(args)}") from error

    def _say_unguarded(self, step: int) -> None:
        hosts.say(
            f"{self._of(step)} is of a version that kept no hashes; damage to it would go unnoticed"
        )

    def _of(self, step: int) -> pathlib.Path:
        return self._path / str(step)

    def wait(self) -> None:
        """Blocks until the last save is on disk."""
        with self._place.errors(lambda: self.latest, saves=True):
            self._manager.wait_until_finished()
            if self._unsynced:
                folders.sync_names(self._path)
                self._unsynced = False

    def check_there(self) -> None:
        """Checks that the work directory is still the one that this run works in.

        Raises:
          UserError: it was removed or replaced.
        """
        self._place.check()

    def close(self) -> None:
        """Finishes the last save and lets the directory go."""
        self.wait()
        self._manager.close()

    @contextlib.contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Turns what the disk does to a run into the user's sentence; see `saving.Place.errors`."""
        with self._place.errors(lambda: self.latest, saves=False):
            yield


def _identity(value: Any) -> Any:
    """What a thing is, whatever path it lies under: its digest, where it has one."""
    return value.get("digest", value) if isinstance(value, Mapping) else value
