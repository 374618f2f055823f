"""One training step: the gradient of a global contrastive loss with respect to `trainable` only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree

from ape_jax.align import losses
from ape_jax.align.model import Batch, Model


@flax.struct.dataclass
class State:
    """What a step changes, and all that a checkpoint must hold of it.

    Attributes:
      step: i32 scalar, steps taken.
      trainable: the trained parameters.
      opt_state: the optimizer's.
    """

    step: Int[Array, ""]
    trainable: PyTree
    opt_state: PyTree


def contrastive_loss(
    model: Model,
    loss: str,
    mesh: Mesh | None,
    trainable: PyTree,
    frozen: PyTree,
    batch: Batch,
    rng: Array | None = None,
) -> Float[Array, ""]:
    """The loss of one global batch; `batch["index"]` says which pairs share an image."""
    image, text = model.image_features(frozen, batch), model.text_features(frozen, batch)
    keys = (None, None) if rng is None else jax.random.split(rng)
    zimg = model.align_images(trainable, image, keys[0])
    ztxt = model.align_texts(trainable, text, keys[1])
    scale, bias = model.logit_scale(trainable, frozen)
    if loss == "sigmoid":
        return losses.sigmoid(zimg, ztxt, scale, bias, ids=batch["index"], mesh=mesh)
    return losses.softmax(zimg, ztxt, scale, ids=batch["index"], mesh=mesh)


def make_step(
    model: Model,
    loss: str,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | None = None,
) -> Callable[[State, PyTree, Batch, Array], tuple[State, dict[str, Any]]]:
    """The pure step `(state, frozen, batch, key) -> (state, metrics)`; jit it with `state` donated.

    Everything random in it is keyed by (key, step). The key is an argument and no constant, so that
    runs that differ only in their seed share one compiled program.
    """

    def step(
        state: State, frozen: PyTree, batch: Batch, key: Array
    ) -> tuple[State, dict[str, Any]]:
        rng = jax.random.fold_in(key, state.step)

        def loss_of(trainable: PyTree) -> Float[Array, ""]:
            return contrastive_loss(model, loss, mesh, trainable, frozen, batch, rng)

        value, grads = jax.value_and_grad(loss_of)(state.trainable)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
        trainable = model.clamp_scale(optax.apply_updates(state.trainable, updates))
        metrics = {
            "loss": value,
            "grad_norm": optax.global_norm(grads),
            "update_norm": optax.global_norm(updates),
            "scale": model.logit_scale(state.trainable, frozen)[0],
        }
        return State(step=state.step + 1, trainable=trainable, opt_state=opt_state), metrics

    return step


def init_state(trainable: PyTree, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step."""
    return State(
        step=jnp.zeros((), jnp.int32), trainable=trainable, opt_state=optimizer.init(trainable)
    )
