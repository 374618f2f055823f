"""Optimizers, schedules and which parameters decay, from the config's `optim` group."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from ape_jax.align.heads.base import batch_norm
from ape_jax.config.sections import OptimConfig
from ape_jax.errors import UserError

Schedule = Callable[[Any], Any]


def make_schedule(optim: OptimConfig, steps: int) -> Schedule:
    """Learning rate by step: linear warm-up to `lr`, then the named decay to `lr * lr_end`.

    Args:
      optim: the config's `optim` group.
      steps: the run's length; the decay ends there.
    """
    lr, warmup, end = optim.lr, optim.warmup, optim.lr * optim.lr_end
    decay = {
        "constant": lambda: optax.constant_schedule(lr),
        "linear": lambda: optax.linear_schedule(lr, end, steps - warmup),
        "cosine": lambda: optax.cosine_decay_schedule(lr, steps - warmup, alpha=optim.lr_end),
        "rsqrt": lambda: lambda step: lr / jnp.sqrt(1 + step / max(warmup, 1)),
    }[optim.schedule]()
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, lr, warmup), decay], [warmup])


def make_optimizer(
    optim: OptimConfig, schedule: Schedule, trainable: PyTree
) -> optax.GradientTransformation:
    """Clipping by global norm, the optimizer, decoupled decay by name, multipliers by name.

    The global norm is that of the trained parameters: nothing else has a gradient.

    Raises:
      UserError: for a regular expression in `decay_on` or `lr_mults` that no parameter matches,
        since that is a misspelling.
    """
    check_rules(optim, trainable)
    b1, b2 = optim.b1, optim.b2
    scale_by = {
        "adamw": lambda: optax.scale_by_adam(b1, b2),
        "adam": lambda: optax.scale_by_adam(b1, b2),
        "lion": lambda: optax.scale_by_lion(b1, b2),
        "sgd": lambda: optax.trace(decay=b1, nesterov=True),
    }[optim.name]()

    def decayed(tree: PyTree) -> PyTree:
        return match_names(tree, lambda name: bool(re.fullmatch(optim.decay_on, name)))

    return optax.chain(
        optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
        scale_by,
        optax.add_decayed_weights(optim.weight_decay, mask=decayed),
        _scale_by_name(optim.lr_mults),
        optax.scale_by_learning_rate(schedule),
    )


def check_rules(optim: OptimConfig, trainable: PyTree) -> None:
    """Raises the `UserError` of `make_optimizer`, without making one."""
    names = parameter_names(batch_norm.parted(trainable)[0])
    if optim.weight_decay:
        _require_match("optim.decay_on", optim.decay_on, names)
    for pattern, _ in optim.lr_mults:
        _require_match("optim.lr_mults", pattern, names)


def parameter_names(tree: PyTree) -> list[str]:
    """`text_head/dense_0/kernel`, in tree order."""
    return [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def match_names(tree: PyTree, rule: Callable[[str], Any]) -> PyTree:
    """A tree of `rule(name)` in the shape of `tree`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: rule(_name(path)), tree)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _scale_by_name(rules: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    """Multiplies an update by the factor of the first rule that matches its name, else by 1."""

    def factor(name: str) -> float:
        return next((m for pattern, m in rules if re.fullmatch(pattern, name)), 1.0)

    def update(updates: PyTree, state: optax.EmptyState, params: PyTree = None) -> tuple:
        del params
        scaled = jax.tree.map(lambda u, m: u * m, updates, match_names(updates, factor))
        return scaled, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def _require_match(key: str, pattern: str, names: list[str]) -> None:
    if not any(re.fullmatch(pattern, name) for name in names):
        raise UserError(
            f"config.{key}: {pattern!r} matches no trained parameter; they are {', '.join(names)}"
        )
