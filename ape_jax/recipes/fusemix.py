"""FuseMix (arXiv 2312.10144): `fusemix:image=TOWER,text=TOWER,pairs=FILE[,eval=FILE]`.

Both towers stay frozen and are encoded once, pooled; a residual MLP on each side is trained on
mixtures of neighbouring pairs.

Published (paper and code): the heads (4 blocks, expansion 4, dropout 0.6, to 512 dimensions),
mixup with one lambda ~ Beta(1, 1) a step for both sides, batch 40,960, 500 epochs of 5 M pairs,
AdamW at 1e-3 with weight decay 0.1, 100 steps of warm-up, cosine to 1e-6, temperature from 0.07
within [0.001, 0.5]. Their towers are DINOv2 ViT-G/14 and BGE-large.
Inferred: decay on kernels only, image features standardised, no augmentation; our scale is bounded
on one side only, at most 1000; steps count batches of pairs before they are mixed.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(arg, batch=40_960, steps=61_000)
    config.embed = 512
    for side in (config.image, config.text):
        side.head.name = "residual_mlp"
        side.head.depth = 4
        side.head.expansion = 4
        side.head.dropout = 0.6
    config.latent.mixup = 1.0

    config.loss.scale, config.loss.scale_max = 1 / 0.07, 1000.0
    config.optim.lr, config.optim.lr_end = 1e-3, 1e-3
    config.optim.warmup = min(100, args.steps // 10)
    config.optim.weight_decay = 0.1
    config.optim.clip = 0.0

    if args.runlocal:
        config.embed = 64
        config.image.head.depth = config.text.head.depth = 1
    return recipes.finish(config, args)
