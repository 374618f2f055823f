"""Freeze-Align (arXiv 2409.19425): `freeze_align:image=TOWER,text=TOWER,pairs=FILE[,eval=FILE]`.

Both towers stay frozen; on each side every token goes through a small projector before the mean: on
the image side CLS and patches apart, then added, on the text side with an MLP after the mean. Every
token of an image is kept, at 256 pixels 400 kB a view for a small tower.

Published (paper and the configuration with their code): the heads, the joint width of 1024, AdamW
at 1e-3 with decay 0.02, cosine to 1e-5, 15 epochs of which 10 warm up, batch 16,384, temperature
0.07 learned. Their towers are DINOv2-large and all-roberta-large-v1, their pairs 20 million with
balanced concepts, which is what they credit most and what a recipe cannot bring. Inferred: dropout
of 0.1 in the heads, the scale's bound of 100, batch and steps here, which are for fewer pairs.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(arg, steps=2000)
    config.image.pooling = "none"
    config.image.standardize = False
    config.image.head.name = config.text.head.name = "token_pool_mlp"
    config.image.head.dropout = config.text.head.dropout = 0.1
    config.embed = 1024

    config.optim.lr, config.optim.lr_end = 1e-3, 0.01
    config.optim.warmup = 2 * args.steps // 3
    config.optim.weight_decay = 0.02
    return recipes.finish(config, args)
