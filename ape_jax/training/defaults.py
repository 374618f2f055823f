"""Settles what a config leaves to the data: batch, steps, views and image size."""

from __future__ import annotations

import io
from typing import TypeVar

import numpy as np
from PIL import Image

from ape_jax import config as config_lib
from ape_jax.config import Config, automatic
from ape_jax.config.outside import is_outside
from ape_jax.config.rules import HELD_OUT
from ape_jax.data import split
from ape_jax.data.pairs import Pairs
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef
from ape_jax.parallel import hosts
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.towers.loading import input_size

C = TypeVar("C", bound=Config)
_LOOKED_AT = 32


def with_split(config: C) -> C:
    """The config with `data.split` written as the specs of two parts, which anything opens.

    Args:
      config: a resolved config.
    """
    if not config.data.split:
        return config
    how = {"share": config.data.split, "seed": config.seed, "spec": config.data.pairs}
    parts = {which: str(split.Part(which=which, **how)) for which in ("held-out", "rest")}
    changes = {
        "data.pairs": parts["rest"],
        "data.eval": {**config.data.eval, HELD_OUT: parts["held-out"]},
        "data.split": 0.0,
    }
    return config.replace(changes)


def settled(config: C, train: Pairs) -> C:
    """The config with what it leaves open settled by the training pairs; says what that is.

    Args:
      config: a resolved config.
      train: its training pairs.

    Raises:
      UserError: where the settled values do not go with the others; they are named.
    """
    if config.eval.keep == "best" and not config.train.eval_every:
        config = config.replace({"train.eval_every": automatic.AUTO})
    if not automatic.is_open(config):
        return config
    pairs = min(config.data.sample or len(train), len(train))
    devices = mesh_lib.make_mesh().size
    small = config.image.size == automatic.AUTO and _are_small(config, train)
    values, line = automatic.settled(config, pairs, small=small, devices=devices)
    if line:
        hosts.say(line)
    return config_lib.resolve({**config_lib.flatten(config), **values}, type(config))


def _are_small(config: Config, pairs: Pairs) -> bool:
    """Whether most images have at most as many pixels a side as `automatic.SMALL_IMAGE`.

    And the tower takes more than that, and images of that size.
    """
    if is_outside(config.image.tower):
        return False
    size, patch = input_size(config.image.tower)
    if size <= automatic.SMALL_IMAGE or automatic.SMALL_IMAGE % patch:
        return False
    chosen = np.unique(np.linspace(0, len(pairs) - 1, _LOOKED_AT).astype(int))
    sides = [side for i in chosen if (side := _longer_side(pairs[int(i)].image))]
    return bool(sides) and float(np.median(sides)) <= automatic.SMALL_IMAGE


def _longer_side(image: ImageRef) -> int:
    """From the header alone; 0 for an image that cannot be read, which others report."""
    try:
        content = image.content
        if isinstance(content, np.ndarray):
            return max(content.shape[:2])
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as opened:
            return max(opened.size)
    except (UserError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0
