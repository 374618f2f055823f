"""Training for a fixed number of steps from a run made ready, without writing anything."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import jax
import numpy as np
import optax
from jaxtyping import PyTree

from ape_jax.errors import UserError
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs.aligned import AlignedModel
from ape_jax.runs.checkpoints.state import State
from ape_jax.training import step as step_lib
from ape_jax.training.blocks import next_boundary
from ape_jax.training.input.feed import open_feed
from ape_jax.training.run import Run


def follow(run: Run, every: int) -> Iterator[State]:
    """Trains a run to `train.steps`; the same steps, bit for bit, as `training.loop` takes.

    Args:
      run: the run; its trained parameters are taken over.
      every: steps between states that are yielded.

    Yields:
      The state before the first step, after each `every` steps, and at the end. The next step
      overwrites it.

    Raises:
      UserError: for a loss that is no longer finite.
    """
    aligned, config = run.aligned, run.aligned.config
    step, optimizer = step_lib.from_config(
        config, aligned.model, aligned.trainable, aligned.mesh, teacher=run.teacher
    )
    state, frozen = placed_state(aligned, optimizer), aligned.frozen
    train_on = step_lib.make_run(step, aligned.mesh, jax.tree.map(lambda x: x.sharding, state))
    key, steps = jax.random.key(config.seed), config.train.steps
    yield state
    blocks = open_feed(run).blocks(0, steps)
    with contextlib.closing(blocks):
        for span, block in blocks:
            at, end = span.first + span.start, span.first + span.stop
            while at < end:
                stop = next_boundary(at, end, every)
                bounds = np.int32(at - span.first), np.int32(stop - span.first)
                state, scalars = train_on(state, frozen, key, block, *bounds)
                at = stop
                if at % every == 0 or at == steps:
                    _check_finite(float(scalars["loss"][at - 1 - span.first]), at)
                    yield state


def _check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise UserError(
            f"the loss of a fold is {loss} at step {step}; lower optim.lr or set optim.clip"
        )


def placed_state(aligned: AlignedModel, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step, made where it will lie; takes over `aligned.trainable`."""
    config, trainable = aligned.config, aligned.trainable

    def init(trainable: PyTree) -> State:
        return step_lib.init_state(trainable, optimizer, config.optim.ema)

    how = config.mesh.shard_min_size, config.mesh.rules, tuple(trainable)
    out = mesh_lib.trained_shardings(jax.eval_shape(init, trainable), aligned.mesh, *how)
    # Donated: a trained tower would lie there once more for as long as the run goes on.
    return jax.jit(init, donate_argnums=0, out_shardings=out)(trainable)
