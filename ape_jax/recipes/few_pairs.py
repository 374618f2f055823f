"""The most from few pairs, whatever paper it comes from:
`--config few_pairs:image=TOWER,text=TOWER,pairs=FILE[,eval=FILE][,language=COLUMN]`.

Linear maps on both sides start from a strongly regularised CCA, for which directions in which
augmentation moves an image count less; a token MLP beside the text's starts from zero. They are
then trained contrastively, the gentler the fewer pairs there are: a low learning rate, dropout on
the features. Both towers stay frozen. With `language`, a column or `auto`, the mean of
its own language is taken off each caption.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes
from ape_jax.config.automatic import AUTO


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(arg, views=AUTO, language="")
    config.data.language = args.language
    config.image.head.name = "linear"
    config.text.head.name = "linear+token_mlp"
    config.text.head.depth, config.text.head.width = 2, 1024
    config.start.method = "cca"
    # More than held-out pairs of one kind would ask for: it is what carries over to other styles.
    config.closed.l2, config.closed.text_l2, config.closed.power = 1.0, 3.0, 1.0
    config.closed.noise = 2.0 if args.views != 1 else 0.0
    config.latent.dropout = AUTO

    recipes.augmented(config, args)

    config.optim.lr = AUTO
    config.optim.warmup = recipes.share(args.steps, 10)
    config.optim.weight_decay = 0.1
    return recipes.finish(config, args)
