"""ShareLock (arXiv 2410.07173): `sharelock:image=TOWER,text=TOWER,pairs=FILE[,eval=FILE]`.

Both towers stay frozen, the image side untouched; an MLP on the last token of a language model is
trained.

Published (paper and code): the head (4 layers of 4096, batch norm, ReLU, dropout 0.2), the fixed
scale 14.3, batch 16,384 (1,024 accumulated 16 times, negatives and batch norm among 1,024), 5,000
steps, Adam at 1e-3 with weight decay 1e-4, 150 steps of warm-up, cosine, clipping at 1. Their
towers are DINOv2 and Llama-3-8B, their pairs CC3M or 563 k others.
Inferred: weight decay decoupled, on kernels only; the image side is not standardised, as in theirs;
the loss is global over a batch of 1,024.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(arg, batch=1024, steps=5000)
    config.image.standardize = False
    config.text.pooling = "last"
    config.text.head.name = "pooled_mlp"
    config.text.head.depth, config.text.head.width = 4, 4096
    config.text.head.activation, config.text.head.dropout = "relu", 0.2
    config.text.head.norm = "batch"

    config.loss.scale, config.loss.learn_scale = 14.3, False
    config.optim.lr = 1e-3
    config.optim.warmup = min(150, args.steps // 10)
    config.optim.weight_decay = 1e-4

    if args.runlocal:
        config.text.pooling = "mean"  # MiniLM is no language model: its last token is [SEP].
        config.text.head.width = 256
    return recipes.finish(config, args)
