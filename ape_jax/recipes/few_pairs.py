"""The most from few pairs, whatever paper it comes from:
`--config few_pairs:image=TOWER,text=TOWER,pairs=FILE[,eval=FILE]`.

Linear maps on both sides start from a strongly regularised CCA, a token MLP beside the text's from
zero; they are then trained contrastively, gently: few steps, a low learning rate, dropout on the
features. Both towers stay frozen.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(arg, batch=256, steps=90, views=10)
    config.image.head.name = "linear"
    config.text.head.name = "linear+token_mlp"
    config.text.head.depth, config.text.head.width = 2, 1024
    config.start.method = "cca"
    # More than held-out pairs of one kind would ask for: it is what carries over to other styles.
    config.closed.l2, config.closed.power = 1.0, 1.0
    config.latent.dropout = 0.3

    # With few images each is encoded in several views once. Vectors that are given
    # (image=features:WIDTH) have the views that they have.
    views = 1 if args.image.startswith("features:") else args.views
    config.cache.views = min(views, 2) if args.runlocal else views
    if views != 1:
        config.augment.crop = (0.4, 1.0)
        config.augment.flip = True
        config.augment.randaugment = (2, 5)

    config.optim.lr = 3e-4
    config.optim.warmup = args.steps // 10
    config.optim.weight_decay = 0.1
    return recipes.finish(config, args)
