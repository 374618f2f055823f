"""SAIL (arXiv 2412.04616): `sail:image=TOWER,text=TOWER,pairs=FILE[,eval=FILE]`.

Both towers stay frozen and are encoded once; a gated MLP on each side is trained with the sigmoid
loss. Each image has two captions, an alt text and one that a model wrote, and both are positives.

Published (paper and code): CLS and patch mean side by side, the heads (norm, ReLU6 gate, 8 times
the input's width, to 1024 dimensions), scale 20 and bias -10 to start from, the mean over all N^2
questions, Lion at 1e-5 with b2 0.99 and weight decay 1e-4, cosine, a tenth of warm-up, batch
32,768, 100 epochs of 23 M pairs. Their towers are DINOv2-L and NV-Embed-2.
Inferred: mean-pooled text, weight decay on kernels only, image features standardised before the
norm, no clipping. Give each record two captions, or write `--config.loss.positives=1`.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(arg, batch=32_768, steps=70_000)
    # Given vectors are pooled already.
    config.image.pooling = "own" if args.image.startswith("features:") else "cls+mean"
    config.embed = 1024
    for side in (config.image, config.text):
        side.head.name = "star_mlp"
        side.head.expansion = 8

    config.loss.name, config.loss.normalize = "sigmoid", "square"
    config.loss.scale, config.loss.bias = 20.0, -10.0
    config.loss.positives = 2
    config.optim.name, config.optim.lr, config.optim.b2 = "lion", 1e-5, 0.99
    config.optim.warmup = recipes.share(args.steps, 10)
    config.optim.weight_decay = 1e-4
    config.optim.clip = 0.0

    if args.runlocal:  # Twenty steps at the published rate would show nothing.
        config.optim.lr = 3e-4
        config.embed = 64
        config.image.head.expansion = config.text.head.expansion = 1
    return recipes.finish(config, args)
