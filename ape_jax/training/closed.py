"""A run without training: heads that were solved are stored and evaluated like trained ones."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping
from typing import Any

import optax

from ape_jax.align.subwords import SUBWORDS
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs.checkpoints.checkpoint import Checkpoints
from ape_jax.runs.embed import Embedder
from ape_jax.training import run as run_lib
from ape_jax.training import summary
from ape_jax.training.evaluation import evaluate_all
from ape_jax.training.metrics import MetricWriter
from ape_jax.training.notices import inputs
from ape_jax.training.notices.record import Notices
from ape_jax.training.records import left_out
from ape_jax.training.step import init_state


def finish(
    run: run_lib.Run,
    path: pathlib.Path,
    checkpoints: Checkpoints,
    digests: Mapping[str, str],
) -> dict[str, Any]:
    """Saves the heads as step 0, evaluates them and writes the summary.

    A start that was killed after its checkpoint takes the heads from there.

    Args:
      run: with solved heads, or others that are not trained.
      path: the work directory.
      checkpoints: of it; closed at the end.
      digests: of the pairs.
    """
    began = time.monotonic()
    aligned, writer = run.aligned, MetricWriter(path)
    trainable = {name: tree for name, tree in aligned.trainable.items() if name != SUBWORDS}
    fixed = aligned.statistics
    cuts, notices = inputs.cuts(run), Notices(path)
    notices.add(inputs.look(run, cuts))
    try:
        if checkpoints.latest is None:
            state = init_state(trainable, optax.identity(), aligned.config.optim.ema)
            state = mesh_lib.place_replicated(state, aligned.mesh)
            checkpoints.save(state, fixed, aligned.meta)
        else:
            trainable, fixed = checkpoints.restore_model(trainable, fixed)
        embedder = Embedder(aligned.model, aligned.mesh, aligned.config.eval.batch)
        keep = path if aligned.config.eval.ranks else None
        metrics = evaluate_all(run.tasks, embedder, trainable, {**aligned.frozen, **fixed}, keep)
        writer.write(0, metrics)
    finally:
        writer.close()
        checkpoints.close()
    checkpoints.check_there()
    counts = left_out.write(path, left_out.of(run))
    seconds, said = time.monotonic() - began, {"notices": notices.found, "cuts": cuts}
    return summary.write(run, path, 0, digests, metrics, seconds, counts, **said)
