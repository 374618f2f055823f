"""APE on your own pairs: `--config ape:image=TOWER,text=TOWER,pairs=FILE[,eval=FILE]`.

Both towers stay frozen; an MLP on the text tower's tokens is trained (arXiv 2210.03927). The paper
gives the head's depth (4 to 6 layers), its size (7.5 to 22.5 % of the text tower) and the epochs;
optimizer, learning rate, temperature and batch are ours.

`ape:paper,pairs=FILE` is a large run of it: ViT-L/16 and BERT-large, 6 layers of 4096.
The towers and the head's depth are the paper's; its width and the batch stand in for what the paper
gives in shares only.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes
from ape_jax.config.automatic import AUTO


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(arg, views=AUTO, paper=False)
    config.text.head.depth = 4
    config.text.head.dropout = 0.1
    if args.paper:
        recipes.large(config, args)
        config.text.head.depth, config.text.head.width = 6, 4096

    # Image augmentation helps sizeably, text augmentation hardly (the paper). With few images,
    # encode each in several views once; views=0 draws a fresh one in every step instead.
    recipes.augmented(config, args)

    config.optim.lr = 1e-3
    config.optim.warmup = recipes.share(args.steps, 10)
    config.optim.weight_decay = 0.1
    config.optim.lr_mults = ((".*log_scale", 5.0),)
    return recipes.finish(config, args)
