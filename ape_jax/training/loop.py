"""The training loop: resume, train, evaluate, checkpoint, sum up."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import PyTree

from ape_jax.errors import UserError
from ape_jax.features.store import FeatureStore
from ape_jax.parallel import hosts
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.parallel.progress import Progress
from ape_jax.training import build, optim, workdir
from ape_jax.training import run as run_lib
from ape_jax.training.checkpoint import Checkpoints
from ape_jax.training.dataset import report_skipped
from ape_jax.training.embed import Embedder
from ape_jax.training.evaluation import evaluate_all
from ape_jax.training.input import TrainInput
from ape_jax.training.metrics import MetricWriter
from ape_jax.training.step import State, init_state, make_step


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    directory: str | os.PathLike[str],
    store: FeatureStore | None = None,
) -> dict[str, Any]:
    """Trains to `train.steps`, taking up an earlier start's work; the same call again resumes.

    A run that was killed and resumed ends with the same bits as one that was not.

    Args:
      config: a resolved config.
      directory: the work directory.
      store: features shared with other runs of this process.

    Returns:
      The contents of `summary.json`.

    Raises:
      UserError: for anything the user can put right, before the first compile where it can be
        known by then; for a loss that is no longer finite; for a full disk.
    """
    path = workdir.locate(directory)
    sources = run_lib.open_sources(config)
    digests = sources.digests()
    done = workdir.read_summary(path, config)
    if done is not None and done.get("digests") == digests:
        return done
    workdir.claim(path, config)
    with workdir.held(path):
        towers = build.load_towers(config)
        meta = run_lib.meta(config, *towers, sources.train)
        checkpoints = Checkpoints(path, config.train.keep, clean=True)
        checkpoints.check(meta)  # Before anything is encoded.
        run = run_lib.prepare(config, sources, towers, store or FeatureStore())
        if hosts.is_first():
            print(run_lib.parameter_table(run), file=sys.stderr)
        with checkpoints.disk_errors():
            return _Loop(run, path, checkpoints, meta, digests).train()


class _Loop:
    """One start of a run."""

    def __init__(
        self,
        run: run_lib.Run,
        path: pathlib.Path,
        checkpoints: Checkpoints,
        meta: Mapping[str, Any],
        digests: Mapping[str, str],
    ):
        self._run, self._path, self._config = run, path, run.config
        self._checkpoints, self._meta, self._digests = checkpoints, meta, digests
        train = run.config.train
        self._schedule = optim.make_schedule(run.config.optim, train.steps)
        optimizer = optim.make_optimizer(run.config.optim, self._schedule, run.trainable)
        step = make_step(run.model, run.config.loss.name, optimizer, run.mesh)
        self._step = jax.jit(step, donate_argnums=0)
        self._key = jax.random.key(run.config.seed)
        self._embedder = Embedder(run.model, run.mesh, run.config.eval.batch)
        # A copy: the step donates its state, and a tower that is trained is shared with `run`.
        trainable = jax.tree.map(jnp.copy, run.trainable)
        state = mesh_lib.place_replicated(init_state(trainable, optimizer), run.mesh)
        self._fixed: PyTree = {k: v for k, v in run.frozen.items() if k == "statistics"}
        self._state = self._resume(state)
        self._frozen = {**run.frozen, **self._fixed}
        self._start = int(self._state.step)
        self._writer = MetricWriter(path, self._start)

    def train(self) -> dict[str, Any]:
        """Trains from where the state stands and writes the summary."""
        train, began = self._config.train, time.monotonic()
        source = TrainInput(
            self._run.dataset, self._run.model.image.tower, self._run.model.text.tower, self._config
        )
        batches = source.batches(self._start)
        progress = Progress("training", train.steps, "pairs", train.batch, done=self._start)
        pending: list[tuple[int, Mapping[str, Any]]] = []
        metrics: Mapping[str, float] = {}
        try:
            for step in range(self._start + 1, train.steps + 1):
                batch = mesh_lib.place_batch(next(batches), self._run.mesh)
                self._state, scalars = self._step(self._state, self._frozen, batch, self._key)
                pending.append((step, scalars))
                last = step == train.steps
                log, evaluate, save = (
                    last or self._due(step, every)
                    for every in (train.log_every, train.eval_every, train.checkpoint_every)
                )
                if log or evaluate or save:  # Nothing is evaluated or saved unchecked.
                    self._flush(pending, progress)
                if evaluate:
                    metrics = self._evaluate(step)
                if save:
                    self._checkpoints.save(self._state, self._fixed, self._meta)
            # The end of the last start may have been cut off between checkpoint and summary.
            metrics = metrics or self._evaluate(None)
        finally:
            with contextlib.ExitStack() as closing:  # The last first, and each whatever fails.
                closing.callback(self._writer.close)
                closing.callback(self._checkpoints.close)
                closing.callback(batches.close)
        report_skipped(source.skipped, len(self._run.dataset.pairs), "training")
        skipped = len(source.skipped)
        return self._summary(metrics, time.monotonic() - began, skipped)

    def _resume(self, state: State) -> State:
        if self._checkpoints.latest is None:
            return state
        state, self._fixed = self._checkpoints.restore(state, self._fixed)
        if hosts.is_first():
            print(f"resuming {self._path} at step {int(state.step)}", file=sys.stderr)
        return state

    def _due(self, step: int, every: int) -> bool:
        return every > 0 and step % every == 0

    def _flush(self, pending: list[tuple[int, Mapping[str, Any]]], progress: Progress) -> None:
        """Fetches the metrics since the last call; stops at a step that is not finite."""
        for step, scalars in jax.device_get(pending):
            if not all(map(math.isfinite, scalars.values())):
                raise UserError(self._not_finite(step, scalars))
            if step == self._config.train.steps or self._due(step, self._config.train.log_every):
                rate = {"lr": float(self._schedule(jnp.int32(step - 1)))}
                self._writer.write(step, {f"train/{k}": v for k, v in {**scalars, **rate}.items()})
        if pending:
            progress.update(step, f"loss {scalars['loss']:.4f}")
        pending.clear()

    def _not_finite(self, step: int, scalars: Mapping[str, Any]) -> str:
        self._checkpoints.wait()
        good = self._checkpoints.latest
        kept = f"the last good checkpoint is step {good}" if good else "there is no checkpoint yet"
        return (
            f"the loss is {scalars['loss']} with gradient norm {scalars['grad_norm']} at step "
            f"{step}; {kept}; lower optim.lr or set optim.clip"
        )

    def _evaluate(self, step: int | None) -> Mapping[str, float]:
        metrics = evaluate_all(self._run.tasks, self._embedder, self._state.trainable, self._frozen)
        if step is not None:
            self._writer.write(step, metrics)
        return metrics

    def _summary(
        self, metrics: Mapping[str, float], seconds: float, skipped: int
    ) -> dict[str, Any]:
        trained, frozen = (
            sum(x.size for x in jax.tree.leaves(tree))
            for tree in (self._run.trainable, self._run.frozen)
        )
        summary = {
            "step": int(self._state.step),
            "pairs": len(self._run.dataset.pairs),
            "images_skipped_in_step": skipped,
            "digests": self._digests,
            "parameters_trained": trained,
            "parameters_frozen": frozen,
            "seconds_last_start": round(seconds, 3),
            **metrics,
        }
        workdir.write_summary(self._path, summary)
        return summary
