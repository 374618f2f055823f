"""What the recipes in `configs/` have in common: their arguments, and their shrunken form."""

from __future__ import annotations

from typing import Any

import ml_collections

from ape_jax import config as config_lib


def start(
    arg: str | None, **defaults: Any
) -> tuple[ml_collections.ConfigDict, ml_collections.ConfigDict]:
    """A config on the user's towers and pairs, and the arguments of the recipe.

    Every recipe takes `image=TOWER,text=TOWER,pairs=PAIRS,eval=PAIRS,batch=N,steps=N,seed=N` and
    `runlocal`.

    Args:
      arg: what follows the colon of `--config FILE.py:`.
      **defaults: of these arguments where they are not the usual ones, and of others that the
        recipe takes.

    Returns:
      (config, arguments); the recipe sets what is its own and ends with `finish`.

    Raises:
      UserError: for an argument that the recipe does not take.
    """
    usual = {"image": "", "text": "", "pairs": "", "eval": "", "batch": 512, "steps": 2000}
    args = config_lib.parse_arg(arg, **{**usual, "seed": 0, "runlocal": False, **defaults})
    config = config_lib.default()
    config.seed = args.seed
    config.image.tower, config.text.tower = args.image, args.text
    config.data.pairs = args.pairs
    config.data.eval = {"eval": args.eval} if args.eval else {}
    config.train.batch, config.train.steps = args.batch, args.steps
    config.train.checkpoint_every = max(args.steps // 10, 1)
    config.train.log_every = max(args.steps // 100, 1)
    return config, args


def finish(
    config: ml_collections.ConfigDict, args: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    """The finished recipe; under `runlocal`, twenty steps of it on a few pairs of the demo."""
    if not args.runlocal:
        return config
    config.image.tower = args.image or "demo:vit_s14"
    config.text.tower = args.text or "demo:minilm"
    config.data.pairs = args.pairs or "demo:twemoji:train[:96]"
    config.image.size = 56  # Of 16 patches: a step of both towers takes a second.
    config.train.batch, config.train.steps = 32, 20
    config.train.log_every, config.train.checkpoint_every = 1, 10
    config.optim.warmup = min(config.optim.warmup, 2)
    return config
