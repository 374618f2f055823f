"""Building blocks of `ape_jax/recipes/`: arguments, demo pairs and the short `runlocal`."""

from __future__ import annotations

from typing import Any

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config.automatic import AUTO


def start(
    arg: config_lib.Argument, **defaults: Any
) -> tuple[ml_collections.ConfigDict, ml_collections.ConfigDict]:
    """Starts a recipe: a config on the user's towers and pairs, and the recipe's arguments.

    Every recipe takes `image=TOWER,text=TOWER,pairs=PAIRS,eval=PAIRS,batch=N,steps=N,seed=N` and
    `runlocal`. Where neither the user nor the recipe says them, batch and steps follow from the
    number of pairs (`config.automatic`).

    Args:
      arg: the text after the colon of `--config NAME:`, or arguments by name.
      **defaults: defaults that differ from the usual ones, and those of arguments that only this
        recipe takes.

    Returns:
      (config, arguments); the recipe changes the config and ends with `finish`.

    Raises:
      UserError: for an argument that the recipe does not take.
    """
    usual = {"image": "", "text": "", "pairs": "", "eval": ""}
    usual |= {"batch": AUTO, "steps": AUTO}
    args = config_lib.parse_arg(arg, **{**usual, "seed": 0, "runlocal": False, **defaults})
    config = config_lib.default()
    config.seed = args.seed
    config.image.tower, config.text.tower = args.image, args.text
    config.data.pairs = args.pairs
    config.data.eval = {"eval": args.eval} if args.eval else {}
    config.train.batch, config.train.steps = args.batch, args.steps
    config.train.checkpoint_every = share(args.steps, 10) or 1
    config.train.log_every = share(args.steps, 100) or 1
    return config, args


def share(steps: int, parts: int) -> int:
    """A part of the steps; `AUTO` where they are left open.

    Example:
      >>> share(2000, 10), share(AUTO, 10)
      (200, -1)
    """
    return AUTO if steps == AUTO else steps // parts


def augmented(config: ml_collections.ConfigDict, args: ml_collections.ConfigDict) -> None:
    """Encodes each image in several augmented views once, of a size that follows from the images.

    Vectors that are brought (`image=features:WIDTH`) have the views that they have.

    Args:
      config: changed in place.
      args: with `views`: their number, 0 for a fresh one in every step, or `AUTO`.
    """
    if args.image.startswith("features:"):
        return
    few = 2 if args.views == AUTO else min(args.views, 2)
    config.cache.views = few if args.runlocal else args.views
    config.image.size = AUTO
    if args.views != 1:
        config.augment.crop = (0.4, 1.0)
        config.augment.flip = True
        config.augment.randaugment = (2, 5)


def large(config: ml_collections.ConfigDict, args: ml_collections.ConfigDict) -> None:
    """Sets ViT-L/16 and BERT-large, unless the user names others, and 16,384 pairs a step.

    What would follow from the number of pairs is set as well: 2,000 steps, ten views.
    """
    args.steps = 2000 if args.steps == AUTO else args.steps
    args.views = 10 if args.views == AUTO else args.views
    config.train.steps = args.steps
    config.train.checkpoint_every, config.train.log_every = args.steps // 10, args.steps // 100
    config.image.tower = args.image or "hf:google/vit-large-patch16-224-in21k"
    config.text.tower = args.text or "hf:google-bert/bert-large-uncased"
    config.train.batch = 16_384


def finish(
    config: ml_collections.ConfigDict, args: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    """Finishes a recipe; with `runlocal` it becomes twenty steps on a few pairs of the demo."""
    if not args.runlocal:
        return config
    config.image.tower = args.image or "demo:vit_s14"
    config.text.tower = args.text or "demo:minilm"
    config.data.pairs = args.pairs or "demo:twemoji:train[:96]"
    config.image.size = 42  # Of nine patches: a step of both towers takes half a second.
    config.train.batch, config.train.steps = 32, 20
    config.train.log_every, config.train.checkpoint_every = 1, 10
    config.optim.warmup = 2 if config.optim.warmup == AUTO else min(config.optim.warmup, 2)
    return config


def _demo_towers(config: ml_collections.ConfigDict) -> None:
    """Sets the towers of the demo, and a wide token MLP of two layers."""
    config.image.tower = "demo:vit_s14"
    config.image.size = 112
    # These weights were tuned further for saliency: their last blocks carry less than the ninth.
    config.image.layer = 9
    config.image.pooling = "cls+mean"
    config.text.tower = "demo:minilm"
    # The paper's head has 4 to 6 layers and 460 thousand pairs. On the validation concepts of the
    # emoji, a wide one of 2 layers does no worse than 4, and costs less.
    config.text.head.depth = 2
    config.text.head.width = 1024


def emoji(config: ml_collections.ConfigDict, *, validation: bool, views: int) -> None:
    """Trains on about a thousand emoji of Twemoji and tests on other concepts.

    Args:
      config: changed in place.
      validation: whether the test sets are those for choosing hyper-parameters.
      views: augmented views of each image, encoded once; each step samples one of them.
    """
    _demo_towers(config)
    config.data.pairs = "demo:twemoji:train"
    split = "validation" if validation else "test"
    config.data.eval = {
        "same-style": f"demo:twemoji:{split}",
        "style-shift": f"demo:openmoji:{split}",
    }
    config.cache.views = views
    config.augment.crop = (0.4, 1.0)
    config.augment.flip = True
    config.augment.randaugment = (2, 5)
    config.train.batch, config.train.steps = 256, 90
    config.optim.warmup, config.optim.weight_decay = 9, 0.1


def icons(config: ml_collections.ConfigDict, *, validation: bool) -> None:
    """Trains on sixty thousand icons and tests on unseen names, in seen and in unseen sets.

    Args:
      config: changed in place.
      validation: whether the test set is the one for choosing hyper-parameters.
    """
    _demo_towers(config)
    config.data.pairs = "demo:icons:train"
    config.data.eval = (
        {"validation": "demo:icons:validation"}
        if validation
        else {"unseen-names": "demo:icons:test", "unseen-sets": "demo:icons:test_sets"}
    )
    # A drawing has no background and no camera: one clean view. The same name stands under several
    # drawings.
    config.cache.views = 1
    config.loss.same = "image+caption"
    config.train.batch = 1024
    config.optim.weight_decay = 0.1
    # With this many pairs, rate and temperature matter more than the head's shape.
    config.optim.lr_mults = ((".*log_scale", 5.0),)
