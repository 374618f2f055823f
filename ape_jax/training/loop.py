"""The training loop: resume, train, evaluate, checkpoint, sum up."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jaxtyping import PyTree

from ape_jax.align import latent
from ape_jax.align.losses import objective
from ape_jax.config import Config
from ape_jax.config.automatic import AUTO
from ape_jax.errors import Preempted, UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.features.frontier import Sources
from ape_jax.parallel import hosts
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.parallel.preemption import Preemption
from ape_jax.runs import build, provenance
from ape_jax.runs.checkpoints import agreed
from ape_jax.runs.checkpoints.checkpoint import Checkpoints
from ape_jax.runs.checkpoints.state import State
from ape_jax.runs.directory import claim, layers_record, workdir
from ape_jax.runs.embed import Embedder
from ape_jax.terminal import flags
from ape_jax.terminal.progress import Progress
from ape_jax.training import closed, folds, layers, metrics, summary
from ape_jax.training import run as run_lib
from ape_jax.training import step as step_lib
from ape_jax.training.best import Best
from ape_jax.training.blocks import Span, next_boundary
from ape_jax.training.evaluation import evaluate_all
from ape_jax.training.folds.fixed import placed_state
from ape_jax.training.input import opened
from ape_jax.training.input.feed import open_feed
from ape_jax.training.notices import inputs
from ape_jax.training.notices.record import Notices
from ape_jax.training.notices.watch import Watch
from ape_jax.training.records import left_out
from ape_jax.training.step import make_run


def train_and_evaluate(
    config: Config,
    directory: str | os.PathLike[str],
    store: FeatureStore | None = None,
    sources: Sources | None = None,
) -> dict[str, Any]:
    """Trains to `train.steps`, taking up an earlier start's work; the same call again resumes.

    A run that was killed and resumed ends with the same bits as one that was not.

    Args:
      config: a resolved config.
      directory: the work directory.
      store: features shared with other runs of this process.
      sources: the config's pairs, where another run of this process has opened them.

    Returns:
      The contents of `summary.json`.

    Raises:
      UserError: for anything the user can put right, before the first compile where it can be
        known by then; for a loss that is no longer finite; for a full disk.
      Preempted: where SIGTERM asked for the end; the state is saved.
    """
    path = workdir.locate(directory)
    agreed.on_config(config)
    _check_batch(config)  # Before pairs are read.
    config, sources = opened.settled(config, sources)
    _check_batch(config)
    digests = sources.digests()
    agreed.on_pairs(digests)
    store = store or FeatureStore()
    config, chosen = layers.settled(config, sources.train, path, store)
    done = workdir.read_summary(path, config)
    ended = done is not None and done.get("digests") == digests
    agreed.on_workdir(finished_run=ended)
    if done is not None and ended:
        return done
    with claim.claimed(path, config):
        layers_record.write(path, chosen, workdir.AGAIN)
        checkpoints = Checkpoints(path, config.train.keep, clean=True)
        run, steps = _prepared(config, sources, store, checkpoints, path)
        resumes = checkpoints.latest is not None
        counts = left_out.write(path, left_out.of(run), keeps=resumes)
        if hosts.is_first():
            if counts:
                print(f"what is left out is listed in {path / left_out.FILE}", file=sys.stderr)
            print(run_lib.parameter_table(run, full=flags.is_verbose()), file=sys.stderr)
        with checkpoints.disk_errors():
            if not config.trains or steps == 0:
                return closed.finish(run, path, checkpoints, digests)
            return Loop(run, path, checkpoints, digests).train()


def _check_batch(config: Config) -> None:
    """Raises UserError for a batch that the loss or the mixup cannot take."""
    if not config.trains or config.train.batch == AUTO:
        return
    mixed = latent.from_config(config.latent)
    latent.check_batch(mixed, config.train, mesh_lib.make_mesh().size)
    pairs = config.train.batch // (2 if config.latent.mixup else 1)
    objective.check_batch(objective.from_config(config.loss), pairs)


def _prepared(
    config: Config,
    sources: Sources,
    store: FeatureStore,
    checkpoints: Checkpoints,
    path: pathlib.Path,
) -> tuple[run_lib.Run, int | None]:
    """The run made ready, and the number of steps that folds have chosen, None without.

    What was read of the towers is on the mesh, and the host lets it go.
    """
    towers = build.load_towers(config)
    meta = provenance.meta(config, towers, sources.train, sources.unpaired_digests())
    agreed.on_towers(meta, towers.text.prepare)
    checkpoints.check(meta)  # Before anything is encoded.
    agreed.on_workdir(newest_checkpoint=checkpoints.latest)
    config, steps = folds.settled(config, sources, towers, store, path)
    resumes, solved = checkpoints.latest is not None, checkpoints.solved
    return run_lib.prepare(config, sources, towers, store, solved, resumes=resumes), steps


class Loop:
    """One start of a run; it takes over the run's trained parameters, which go into its state."""

    def __init__(
        self,
        run: run_lib.Run,
        path: pathlib.Path,
        checkpoints: Checkpoints,
        digests: Mapping[str, str],
    ):
        aligned = run.aligned
        self._run, self._path, self._config = run, path, aligned.config
        self._checkpoints, self._meta, self._digests = checkpoints, aligned.meta, digests
        mesh, model, config = aligned.mesh, aligned.model, aligned.config
        step, optimizer = step_lib.from_config(
            config, model, aligned.trainable, mesh, teacher=run.teacher
        )
        self._key = jax.random.key(config.seed)
        self._embedder = Embedder(model, mesh, config.eval.batch)
        state = placed_state(aligned, optimizer)
        self._train_on = make_run(step, mesh, jax.tree.map(lambda x: x.sharding, state))
        self._fixed: PyTree = aligned.statistics
        self._state = self._resume(state)
        self._frozen = {**aligned.frozen, **self._fixed}
        self._start = int(self._state.step)
        self._writer = metrics.MetricWriter(path, self._start)
        self._watch = Watch(config, metrics.read(path) if hosts.is_first() else ())
        self._notices, self._cuts = Notices(path, self._start), inputs.cuts(run)
        self._notices.add(inputs.look(run, self._cuts))
        self._best = Best(path, config)
        self._preemption = Preemption()
        # Calls whose metrics are still on the device: their block's first step, bounds, metrics.
        self._pending: list[tuple[int, range, Mapping[str, Any]]] = []

    def train(self) -> dict[str, Any]:
        """Trains from where the state stands and writes the summary."""
        train, began = self._config.train, time.monotonic()
        feed = open_feed(self._run)
        self._skipped, self._noted = feed.skipped, 0
        blocks = feed.blocks(self._start, train.steps)
        to_do, start = self._start < train.steps, self._start
        self._progress = Progress(
            "training", train.steps, "pairs", train.batch, done=start, compiles=to_do
        )
        figures: Mapping[str, float] = {}
        try:
            with self._preemption:
                for span, block in blocks:
                    figures = self.take(span, block) or figures
            # The end of the last start may have been cut off between checkpoint and summary.
            figures = self._best.metrics or figures or self._evaluate(None)
        finally:
            with contextlib.ExitStack() as closing:  # The last first, and each whatever fails.
                closing.callback(self._writer.close)
                closing.callback(self._checkpoints.close)
                closing.callback(self._best.close)
                closing.callback(blocks.close)
        self._checkpoints.check_there()
        found, skipped = left_out.with_skipped(
            self._run, feed.skipped, self._path if start else None
        )
        counts = left_out.write(self._path, found, keeps=start > 0)
        seconds, step = time.monotonic() - began, int(self._state.step)
        return summary.write(
            self._run,
            self._path,
            step,
            self._digests,
            figures,
            seconds,
            counts,
            skipped,
            notices=self._notices.found,
            cuts=self._cuts,
            **self._best.record,
        )

    def take(self, span: Span, block: Mapping[str, Any]) -> Mapping[str, float]:
        """Trains on a block, in as many calls as there is to evaluate or save in between.

        Returns:
          The metrics of an evaluation at the end of the block, if there was one.
        """
        train, metrics = self._config.train, {}
        periods = train.eval_every, train.checkpoint_every, int(train.steps_per_call == 1)
        step, end = span.first + span.start, span.first + span.stop
        while step < end:
            calls = range(step, next_boundary(step, end, *periods))
            bounds = np.int32(calls.start - span.first), np.int32(calls.stop - span.first)
            self._state, scalars = self._train_on(
                self._state, self._frozen, self._key, block, *bounds
            )
            self.flush()  # What came before, while this call runs.
            self._pending.append((span.first, calls, scalars))
            step = calls.stop
            last = step == train.steps
            evaluate, save = (
                last or self._due(step, every)
                for every in (train.eval_every, train.checkpoint_every)
            )
            if evaluate or save:  # Nothing is evaluated or saved unchecked.
                self.flush()
            metrics = self._evaluate(step) if evaluate else {}
            if metrics:
                self._best.offer(metrics, self._state, self._fixed, self._meta)
            if save:
                self._save()
            if not last and self._preemption.requested():
                self._leave(step)
        return metrics

    def _save(self) -> None:
        if len(self._skipped) > self._noted:  # The start that goes on from here meets others.
            left_out.note(self._run, self._path, self._skipped)
            self._noted = len(self._skipped)
        self._writer.sync()
        self._checkpoints.save(self._state, self._fixed, self._meta)

    def _leave(self, step: int) -> NoReturn:
        """Saves what there is and ends the run, to be taken up again."""
        self.flush()
        self._save()
        raise Preempted(
            f"asked to end: step {step} of {self._config.train.steps} is saved in {self._path}; "
            "the same command goes on from there"
        )

    def _resume(self, state: State) -> State:
        if self._checkpoints.latest is None:
            return state
        state, self._fixed = self._checkpoints.restore(state, self._fixed)
        if hosts.is_first():
            print(f"resuming {self._path} at step {int(state.step)}", file=sys.stderr)
        return state

    def _due(self, step: int, every: int) -> bool:
        return every > 0 and step % every == 0

    def flush(self) -> None:
        """Fetches the metrics that are pending; stops at the first step that is not finite."""
        for first, calls, arrays in self._pending:
            arrays = jax.device_get(arrays)
            for step in calls:
                scalars = {name: float(values[step - first]) for name, values in arrays.items()}
                self._report(step + 1, scalars)
            self._progress.update(step + 1, f"loss {scalars['loss']:.4f}")
        self._pending.clear()

    def _report(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the metrics of the first `step` steps' last, if it is time for it."""
        if not all(map(math.isfinite, scalars.values())):
            raise UserError(self._not_finite(step, scalars))
        self._notices.add(self._watch.see(step, scalars), self._progress.say)
        if step == self._config.train.steps or self._due(step, self._config.train.log_every):
            self._writer.write(step, {f"train/{name}": value for name, value in scalars.items()})

    def _not_finite(self, step: int, scalars: Mapping[str, Any]) -> str:
        self._checkpoints.wait()
        good = self._checkpoints.latest
        kept = f"the last good checkpoint is step {good}" if good else "there is no checkpoint yet"
        cause = inputs.not_finite(self._run) or "lower optim.lr or set optim.clip"
        return (
            f"the loss is {scalars['loss']} with gradient norm {scalars['grad_norm']} at step "
            f"{step}; {kept}; {cause}"
        )

    def _evaluate(self, step: int | None) -> Mapping[str, float]:
        state, keep = self._state.evaluated, self._path if self._config.eval.ranks else None
        metrics = evaluate_all(self._run.tasks, self._embedder, state, self._frozen, keep)
        if step is not None:
            self._writer.write(step, metrics)
        return metrics
