"""CLIP training from two pretrained towers: `clip:image=TOWER,text=TOWER,pairs=FILE`.

Everything is trained, each tower from where its own pretraining left it (Radford et al., arXiv
2103.00020, trains from scratch). Published: the softmax loss over the global batch, the learned
temperature from 0.07 with its bound of 100, linear projections. The rest is ours, for few pairs.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(arg, embed=256)
    config.image.tune = config.text.tune = "full"
    config.image.standardize = False  # There are no fixed features to take statistics of.
    config.image.head.name = config.text.head.name = "linear"
    config.text.pooling = "cls"
    config.embed = args.embed

    config.augment.crop = (0.4, 1.0)
    config.augment.flip = True
    config.augment.randaugment = (2, 5)

    # What is new can go faster than what was pretrained.
    config.optim.lr = 5e-5
    config.optim.lr_mults = ((".*_head/.*", 10.0), (".*log_scale", 10.0))
    config.optim.warmup = recipes.share(args.steps, 10)
    config.optim.weight_decay = 0.1
    return recipes.finish(config, args)
