"""LiT on your own pairs: `--config lit:image=TOWER,text=TOWER,pairs=FILE[,eval=FILE]`.

The image tower is locked, the whole text tower and a linear map on its CLS token are trained (Zhai
et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", arXiv 2111.07991). Published: which
part is trained, the global softmax loss, clipping at 1, the CLS token. Learning rate, batch and
decay are ours, for the few pairs that a user brings; `lit_coco_b16b` has the published
ones of one run.

`lit:paper,pairs=FILE` has the size of LiT's runs on public data (L16L there): ViT-L/16
locked, BERT-large trained, 16,384 pairs a step of 16 tokens each. That the gradient is made in 16
parts is ours.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(arg, views=1, paper=False)
    config.text.tune = "full"
    config.text.head.name = "linear"
    config.text.pooling = "cls"

    if args.paper:
        recipes.large(config, args)
        config.text.max_length = 16
        config.train.micro_batch = 1024

    config.cache.views = args.views
    if args.views != 1:
        config.augment.crop = (0.4, 1.0)
        config.augment.flip = True
        config.augment.randaugment = (2, 5)

    # The map on top is new and can go faster than what was pretrained.
    config.optim.lr = 5e-5
    config.optim.lr_mults = (("text_head/.*", 10.0), (".*log_scale", 10.0))
    config.optim.warmup = recipes.share(args.steps, 10)
    config.optim.weight_decay = 0.1
    return recipes.finish(config, args)
