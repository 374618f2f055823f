"""LilT on your own pairs: `lilt:image=TOWER,text=TOWER,pairs=FILE[,tune=MODE]`.

Both towers stay where they are but for under 7 % of the parameters (Khan and Fu, "Contrastive
Alignment of Vision to Language Through Parameter-Efficient Transfer Learning", arXiv 2303.11866).
`tune` is one of the paper's variants: adapter (the default: LwA), adapter+layernorm,
adapter+bitfit, append (DA), append+layernorm, layernorm, bitfit; or full, lora and top:K beside
them. What lies under an appended or the upper blocks can be encoded once, in `views=N` views of
each image: worth it for few pairs, as every token is kept (at 256 pixels 400 kB a view).

Published, and set here: CLS of each side, linear maps with bias to 256, batch 512, AdamW 1e-4 with
decay 0.02 on matrices, cosine to 1e-5 after 1,000 steps of warm-up, temperature 0.07 learned,
RandomResizedCrop from 0.2, flip, RandAugment(2, 7), 25 tokens. Theirs are 15 epochs of COCO, which
is `steps=17000`. Not taken over: a loss that sees one device's pairs only (`loss.negatives`), other
captions of an image as negatives, weight decay on the temperature, dropout in frozen parts, and
CLIP's mean and deviation for every tower. The upper bound of the scale is ours; theirs is 1000.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes, tune


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(arg, steps=17_000, tune="adapter", views=0)
    config.image.tune = config.text.tune = args.tune
    config.image.standardize = False
    config.image.head.name = config.text.head.name = "linear"
    config.image.pooling = config.text.pooling = "cls"
    config.text.max_length = 25
    config.embed = 256

    config.augment.crop = (0.2, 1.0)
    config.augment.flip = True
    config.augment.randaugment = (2, 7)
    if tune.parse(args.tune).frontier == "hidden":
        config.cache.views = args.views
    config.loss.scale_max = 100.0

    config.optim.lr, config.optim.lr_end = 1e-4, 0.1
    config.optim.warmup = min(1000, args.steps // 10)
    config.optim.weight_decay = 0.02
    if args.runlocal:  # Twenty steps at the published rate would show nothing.
        config.optim.lr = 1e-3
    return recipes.finish(config, args)
