"""Settings that follow from the data: what a recipe leaves open, settled once the pairs are known.

A key that may be left open holds `AUTO`. What the user or a recipe sets stays as it is; the settled
config is the one that is recorded, and the same data settle it alike at every start.
"""

from __future__ import annotations

from typing import Any

from ape_jax.config.experiment import Config, flatten
from ape_jax.config.fields import is_number

AUTO = -1
"""The value of a key that is left open; on the command line, `auto`."""

SMALL_IMAGE = 112
"""Pixels a side that small images are encoded at, of which a photo-sized input holds no more."""

_EPOCHS = 20
_LEAST_STEPS = 90
_ENCODED = 4000
# Up to so many pairs: the learning rate and the dropout of features with which heads that start
# from CCA keep what it has found, as docs/results/few-pairs.md and many-pairs.md have measured it.
_GENTLE = ((4_000, 1e-4, 0.6), (16_000, 3e-4, 0.3), (2**62, 3e-3, 0.3))
_LONGER = 66, 300  # Epochs and most steps at the lowest of these rates.
_FEW = 50
_MOST_VIEWS = 10
_KEYS = (
    *("train.batch", "train.steps", "train.log_every", "train.eval_every"),
    *("train.checkpoint_every", "optim.warmup", "cache.views", "image.size"),
    *("optim.lr", "latent.dropout"),
)
_TRAINING = ("train.batch", "train.steps")
_AUGMENT = ("augment.crop", "augment.flip", "augment.randaugment")


def is_open(config: Config) -> bool:
    """Whether anything is left to `settled`.

    Example:
      >>> is_open(Config()), is_open(Config().replace({"train.batch": AUTO}))
      (False, True)
    """
    return any(is_number(value) and value == AUTO for value in _open_keys(config).values())


def settled(
    config: Config, pairs: int, *, small: bool = False, devices: int = 1
) -> tuple[dict[str, Any], str]:
    """Values for the keys that are left open.

    * batch: the largest power of two up to the number of pairs and 256; 512 from 4,000 pairs, 1,024
      from 20,000.
    * learning rate and dropout of features: for heads that start from a closed form, which fewer
      than 4,000 pairs would soon spoil: 1e-4 and 0.6; then 3e-4, and 3e-3 from 16,000, and 0.3.
    * steps: 20 epochs, at least 90, and where the learning rate is that of fewer than 4,000 pairs
      66 epochs up to 300 steps; lines, checkpoints and warm-up are shares of them.
    * views: ten of each image, fewer where that were more than 4,000 images to encode.
    * size: the tower's own, 112 pixels where the images themselves are no larger.

    Example:
      >>> settled(Config().replace({"train.batch": AUTO, "train.steps": AUTO}), 370)
      ({'train.batch': 256, 'train.steps': 90}, '370 pairs: batch 256, 90 steps')

    Args:
      config: the config.
      pairs: number of training pairs.
      small: whether the images are at most `SMALL_IMAGE` pixels a side.
      devices: the batch is a multiple of them.

    Returns:
      Values by dotted key, and a line that says them, '' where there is nothing to say.
    """
    flat, said = flatten(config), []
    values: dict[str, Any] = {}

    def settle(key: str, value: Any, words: str = "") -> None:
        if flat[key] == AUTO:
            values[key] = value
            said.extend([words] if words and (config.trains or key not in _TRAINING) else [])

    batch = _batch(pairs, devices)
    settle("train.batch", batch, f"batch {batch}")
    lr, dropout = next(row[1:] for row in _GENTLE if pairs < row[0])
    in_steps = pairs / {**flat, **values}["train.batch"]
    steps = max(_LEAST_STEPS, int(_EPOCHS * in_steps))
    if flat["optim.lr"] == AUTO and pairs < _GENTLE[0][0]:
        steps = max(steps, min(int(_LONGER[0] * in_steps), _LONGER[1]))
    settle("train.steps", steps, f"{steps} steps")
    settle("optim.lr", lr, f"learning rate {lr:g}")
    settle("latent.dropout", dropout, f"dropout {dropout:g}")
    views = max(min(_MOST_VIEWS, _ENCODED // pairs), 1) if any(map(flat.get, _AUGMENT)) else 1
    size = SMALL_IMAGE if small else 0
    at = f"{size} px" if size else "the tower's own size"
    if flat["cache.views"] == AUTO:
        at = f"{views} {'views' if views > 1 else 'view'} at {at}"
        settle("cache.views", views, "" if flat["image.size"] == AUTO else at.partition(" at")[0])
    if flat["image.size"] == AUTO:
        settle("image.size", size, at)
    if values.get("cache.views") == 1:  # Of one view, nothing is random.
        values |= {key: type(flat[key])() for key in _AUGMENT}
    steps = {**flat, **values}["train.steps"]
    settle("train.log_every", max(steps // 100, 1))
    settle("train.checkpoint_every", max(steps // 10, 1))
    settle("train.eval_every", max(steps // 10, 1))
    settle("optim.warmup", steps // 10)
    warning = "; so few are learned by heart, a few hundred are a start" if pairs < _FEW else ""
    return values, f"{pairs:,} pairs: {', '.join(said)}{warning}" if said else ""


def _batch(pairs: int, devices: int) -> int:
    most = 256 if pairs < 4_000 else 512 if pairs < 20_000 else 1024
    fits = min(1 << (max(pairs, 2).bit_length() - 1), most)
    return max(fits // devices, 1) * devices


def _open_keys(config: Config) -> dict[str, Any]:
    flat = flatten(config)
    return {key: flat[key] for key in _KEYS}
