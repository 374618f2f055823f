"""The trees that a checkpoint holds of a training state, as they lie on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from ape_jax.align.heads.base import batch_norm
from ape_jax.align.subwords import SUBWORDS
from ape_jax.align.unpaired import TEACHER
from ape_jax.runs.checkpoints.state import State

TRAINABLE, OPT_STATE, FIXED = "trainable", "opt_state", "fixed"
AVERAGE = "average"  # Of the trained parameters; there only where one is kept.


def of_state(state: State, fixed: PyTree) -> dict[str, PyTree]:
    """The trees of a state, by the names of their folders.

    Args:
      state: the training state.
      fixed: untrained parameters that belong to the model (the feature statistics), or to its
        training (the teacher).
    """
    own = {name: tree for name, tree in fixed.items() if name != TEACHER}
    items = {TRAINABLE: batch_norm.joined(_lasting(state.trainable)), FIXED: {"fixed": own}}
    if TEACHER in fixed:
        items[TEACHER] = fixed[TEACHER]
    if jax.tree.leaves(state.opt_state):  # What is not trained has none.
        items[OPT_STATE] = _wrapped(state.opt_state, state.trainable)
    if state.average is not None:
        items[AVERAGE] = batch_norm.joined(_lasting(state.average))
    if SUBWORDS in state.trainable:
        both = {TRAINABLE: state.trainable, AVERAGE: state.average or {}}
        items[SUBWORDS] = {name: tree[SUBWORDS] for name, tree in both.items() if tree}
    return items


def _lasting(trained: PyTree) -> PyTree:
    """What the finished model has of the trained parameters, or of their average."""
    return {name: tree for name, tree in trained.items() if name != SUBWORDS}


def to_state(trees: dict[str, Any], step: Any, like: State) -> tuple[State, PyTree]:
    """The state and the fixed parameters of trees that were read; inverse of `of_state`.

    Args:
      trees: by the names of their folders.
      step: i32 scalar, of the state.
      like: a state of the same structure.
    """
    opt_state = like.opt_state
    if OPT_STATE in trees:
        opt_state = _unwrapped(trees[OPT_STATE], like.trainable)
    trained = {
        name: batch_norm.separated(trees[name]) for name in (TRAINABLE, AVERAGE) if name in trees
    }
    for name, layer in trees.get(SUBWORDS, {}).items():
        trained[name] = {**trained[name], SUBWORDS: layer}
    state = State(
        step=step,
        trainable=trained[TRAINABLE],
        opt_state=opt_state,
        average=trained.get(AVERAGE),
    )
    fixed = trees[FIXED]["fixed"]
    return state, {**fixed, TEACHER: trees[TEACHER]} if TEACHER in trees else fixed


def abstract(tree: PyTree) -> PyTree:
    """Shapes, types and placement of the arrays of a tree."""
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)


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
