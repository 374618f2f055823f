"""Training steps: the gradient of a global contrastive loss with respect to `trainable` only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from ape_jax.align import free_pairs as free_lib
from ape_jax.align import latent as latent_lib
from ape_jax.align import subwords as subwords_lib
from ape_jax.align import unpaired as unpaired_lib
from ape_jax.align.free_pairs import FreePairsTerm
from ape_jax.align.heads import Mix, normalize
from ape_jax.align.heads.base import batch_norm
from ape_jax.align.heads.base.batch_norm import STATS
from ape_jax.align.latent import Latent
from ape_jax.align.losses import objective as objective_lib
from ape_jax.align.losses.chunks import embed_in_chunks
from ape_jax.align.losses.objective import Objective
from ape_jax.align.model import Batch, Model
from ape_jax.align.structure import Structure
from ape_jax.align.subwords import Subwords
from ape_jax.align.unpaired import UnpairedTerm
from ape_jax.config import Config
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs.checkpoints.state import State
from ape_jax.runs.outputs import text_pooling
from ape_jax.training import blocks, optim
from ape_jax.training.optim import Schedule

Metrics = dict[str, Any]
Step = Callable[[State, PyTree, Batch, Array], tuple[State, Metrics]]
Run = Callable[[State, PyTree, Array, Batch, int, int], tuple[State, Metrics]]


def contrastive_loss(
    model: Model,
    loss: Objective | str,
    mesh: Mesh | None,
    trainable: PyTree,
    frozen: PyTree,
    batch: Batch,
    rng: Array | None = None,
    latent: Latent | None = None,
    chunks: int = 1,
    structure: Structure | None = None,
    step: Int[Array, ""] | int = 0,
    unpaired: UnpairedTerm | None = None,
    subwords: Subwords | None = None,
    free: FreePairsTerm | None = None,
) -> tuple[Float[Array, ""], tuple[dict[str, PyTree], Metrics]]:
    """The loss of one global batch, the running statistics after it, and metrics.

    The metrics are the spread of embeddings and, with further terms, the parts of the loss.

    `batch` says which pairs share an image (`Objective.ids`). Without `rng` there is no dropout and
    no augmentation. `chunks` is how many parts either side is embedded in, one after the other; the
    loss is the same. Packed captions then come in groups of which each lies in one part (`Packed`).
    `step` is the number of steps before this one.
    """
    image, text = model.image_features(frozen, batch), model.text_features(frozen, batch)
    before = None if structure is None else structure.pooled(image, text)
    objective = objective_lib.named(loss)
    keys, ids = (None, None), objective.ids(batch)
    mixes: tuple[Mix | None, Mix | None] = (None, None)
    if rng is not None:
        keys = jax.random.split(rng)
        if latent is not None:
            image, text = latent.perturb(image, text, rng)
        if latent is not None and latent.mixup:
            weight = latent.weight(rng)
            mix = partial(latent_lib.mix, weight=weight)
            mixes = (mix, partial(mix, positives=objective.positives))
            ids = None if ids is None else latent_lib.mixed_ids(ids, weight)

    def align(
        features: Any, key: Array | None, mix: Any, unit: bool = True
    ) -> tuple[Array, dict[str, PyTree]]:
        def one(part: Any, rng: Array | None) -> tuple[Array, dict[str, PyTree]]:
            return model.align(trainable, frozen, part, rng, mix, unit=unit)

        return embed_in_chunks(one, features, key, chunks, mesh)

    given, image_stats = align(image, keys[0], mixes[0], subwords is None)
    zimg = given if subwords is None else normalize(given)
    ztxt, text_stats = align(text, keys[1], mixes[1])
    stats = image_stats | text_stats
    scale, bias = model.logit_scale(trainable, frozen)
    metrics: Metrics = {"image_spread": _spread(zimg), "text_spread": _spread(ztxt)}
    value = objective(zimg, ztxt, scale, bias, ids, mesh, objective.hard_ids(batch))
    if structure is not None and before is not None:
        added, term = structure(before, (zimg, ztxt), jnp.asarray(step), mixes, mesh)
        metrics |= {"contrastive": value, "structure": term}
        value = value + added
    if subwords is not None:
        added, term = subwords(trainable, frozen, batch, given, mixes[0], mesh)
        metrics |= {"contrastive": metrics.get("contrastive", value), "subwords": term}
        value = value + added
    if unpaired is not None:
        added, found = unpaired(model, mesh, trainable, frozen, batch, rng, jnp.asarray(step))
        metrics |= {"contrastive": metrics.get("contrastive", value), **found}
        value = value + added
    if free is not None:
        added, term = free(model, mesh, trainable, frozen, batch, rng)
        metrics |= {"contrastive": metrics.get("contrastive", value), "free_pairs": term}
        value = value + added
    return value, ({STATS: stats} if stats else {}, metrics)


def _spread(z: Float[Array, "B E"]) -> Float[Array, ""]:
    """Mean squared distance of embeddings from their mean: 0 where all are the same, at most 1."""
    z = jax.lax.stop_gradient(z).astype(jnp.float32)
    return jnp.square(z - z.mean(axis=0)).sum(axis=1).mean()


def make_step(
    model: Model,
    loss: Objective | str,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | None = None,
    *,
    schedule: Schedule | None = None,
    latent: Latent | None = None,
    chunks: int = 1,
    structure: Structure | None = None,
    ema: float = 0.0,
    unpaired: UnpairedTerm | None = None,
    subwords: Subwords | None = None,
    free: FreePairsTerm | None = None,
) -> Step:
    """The pure step `(state, frozen, batch, key) -> (state, metrics)`.

    Everything random in it is keyed by (key, step). The key is an argument and no constant, so that
    runs that differ only in their seed share one compiled program.

    Args:
      model: the model.
      loss: what is minimised, or the name of a loss without options.
      optimizer: of the trained parameters.
      mesh: the devices that batches are sharded over.
      schedule: the optimizer's, for the metric `lr`.
      latent: augmentation of features.
      chunks: see `contrastive_loss`.
      structure: term that is added to the loss.
      ema: the decay of the moving average, 0 for none.
      unpaired: what is added to the loss of the pairs, None for nothing.
      subwords: likewise; its layer is in `trainable`.
      free: likewise, of free pairs.
    """

    def step(state: State, frozen: PyTree, batch: Batch, key: Array) -> tuple[State, Metrics]:
        rng = jax.random.fold_in(key, state.step)

        params, stats = batch_norm.parted(state.trainable)

        def loss_of(params: PyTree) -> tuple[Float[Array, ""], Any]:
            trainable = {**params, **stats}
            how = (rng, latent, chunks, structure, state.step, unpaired, subwords, free)
            return contrastive_loss(model, loss, mesh, trainable, frozen, batch, *how)

        (value, (stats, parts)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        trainable = {**model.clamp_scale(optax.apply_updates(params, updates)), **stats}
        metrics = {
            "loss": value,
            "grad_norm": optax.tree.norm(grads),
            "update_norm": optax.tree.norm(updates),
            "scale": model.logit_scale(state.trainable, frozen)[0],
            **parts,
        }
        if schedule is not None:
            metrics["lr"] = jnp.asarray(schedule(state.step), jnp.float32)
        average = _averaged(state, trainable, ema)
        state = State(
            step=state.step + 1, trainable=trainable, opt_state=opt_state, average=average
        )
        return state, metrics

    return step


def from_config(
    config: Config, model: Model, trainable: PyTree, mesh: Mesh, teacher: Model | None = None
) -> tuple[Step, optax.GradientTransformation]:
    """The step that a run takes, and its optimizer.

    Args:
      config: a resolved config.
      model: the model.
      trainable: the trained parameters, or their shapes.
      mesh: the devices.
      teacher: the model that unpaired data are compared by, None where there are none.
    """
    schedule = optim.make_schedule(config.optim, config.train.steps)
    optimizer = optim.make_optimizer(config.optim, schedule, trainable)
    latent, structure = latent_lib.from_config(config.latent), _structure(config, model)
    step = make_step(
        model,
        objective_lib.from_config(config.loss),
        optimizer,
        mesh,
        schedule=schedule,
        latent=latent,
        chunks=blocks.micro_batches(config.train),
        structure=structure,
        ema=config.optim.ema,
        unpaired=unpaired_lib.from_config(config.unpaired, teacher, latent, structure),
        subwords=subwords_lib.from_config(config),
        free=free_lib.from_config(config, latent),
    )
    return step, optimizer


def _structure(config: Config, model: Model) -> Structure | None:
    tower = model.text.tower
    if not config.structure.weight:
        return None
    pooling = text_pooling.pooling(config, tower)
    return Structure(**config.structure, pooling=pooling, tower=tower.config)


def _averaged(state: State, trainable: PyTree, decay: float) -> PyTree | None:
    """The moving average after a step.

    Its decay grows from 0.1 on, (1 + t) / (10 + t), so that the start is forgotten in time.
    """
    if state.average is None:
        return None
    count = state.step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(lambda old, new: old + (1 - kept) * (new - old), state.average, trainable)


def make_run(step: Step, mesh: Mesh, placed: PyTree | None = None) -> Run:
    """Many steps in one dispatch: `(state, frozen, key, block, start, stop) -> (state, metrics)`.

    A block is a batch with one more leading dimension K: K stacked batches, of which `start` to
    `stop` (exclusive) are trained on. The bounds are arguments of one program, a loop of unknown
    length: a start in the middle of a block, its last part or one step at a time do to each
    batch what the whole block does, and give the same bits. So do blocks of another K, down to 2: a
    dimension of 1 is simplified away, and what is left is fused and rounded in another way.
    `state` is donated.

    Args:
      step: one of them.
      mesh: the devices.
      placed: the sharding of each array of the state; None where every device has all of them.

    Returns:
      The program; its metrics are [K], zero outside of the bounds.
    """

    def run(
        state: State, frozen: PyTree, key: Array, block: Batch, start: Array, stop: Array
    ) -> tuple[State, Metrics]:
        def at(i: Array | int) -> Batch:
            taken = {k: jax.lax.dynamic_index_in_dim(x, i, 0, False) for k, x in block.items()}
            # What is fused with the slice, and so how it is rounded, should not depend on K.
            return jax.lax.optimization_barrier(taken)

        def body(i: Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
            state, kept = step(carry[0], frozen, at(i), key)
            return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), carry[1], kept)

        count = len(block["index"])
        _, shapes = jax.eval_shape(step, state, frozen, at(0), key)
        metrics = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), shapes)
        return jax.lax.fori_loop(start, stop, body, (state, metrics))

    whole = mesh_lib.replicated(mesh)
    out = (whole if placed is None else placed, whole)
    return jax.jit(run, donate_argnums=0, out_shardings=out)


def kept(
    config: Config, model: Model, mesh: Mesh, trainable: PyTree
) -> tuple[PyTree, PyTree | None]:
    """The shapes of what training keeps beside trained parameters of these shapes.

    Args:
      config: a resolved config.
      model: the model.
      mesh: the devices.
      trainable: the shapes of the trained parameters.

    Returns:
      The optimizer's state, and the moving average or None.
    """
    _, optimizer = from_config(config, model, trainable, mesh)
    state = jax.eval_shape(lambda t: init_state(t, optimizer, config.optim.ema), trainable)
    return state.opt_state, state.average


def init_state(
    trainable: PyTree, optimizer: optax.GradientTransformation, ema: float = 0.0
) -> State:
    """The state before the first step; with a moving average if `ema` is not 0."""
    return State(
        step=jnp.zeros((), jnp.int32),
        trainable=trainable,
        opt_state=optimizer.init(batch_norm.parted(trainable)[0]),
        average=jax.tree.map(jnp.copy, trainable) if ema else None,
    )
