"""LiT as big_vision trains it on COCO, the one small recipe of this kind with published figures.

    python -m ape_jax.main --config lit_coco_b16b:image=B_16.npz --workdir DIR

wants a TPU or GPU, `tfds:coco_captions` prepared, and the AugReg ViT-B/16 of ImageNet-21k as a .npz
of big_vision (`image=`). Published for 5,000 steps of 4,096 pairs: ImageNet zero-shot 20.7 %, COCO
image-to-text R@1 47.2 %, text-to-image 32.1 %.

Published, and set here: the locked image tower with its CLS token and no map on it; BERT-base,
trained, CLS to 768; the global softmax loss, scale from 10 without bound; Adam at 1e-3, cosine
after 150 steps, clipping at 1; resize to 224, flip, RandAugment(2, 10); 16 tokens, one caption
drawn of five. Its weight decay of 0.01 is not multiplied by the learning rate, as AdamW's is: 10
here.

Otherwise than there: the sentence ends in [SEP], which theirs leaves out, and RandAugment is this
package's own set of operations. It has not been run here, for want of COCO and the weights.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(
        arg,
        text="hf:google-bert/bert-base-uncased",
        pairs="tfds:coco_captions:train",
        eval="tfds:coco_captions:val",
        batch=4096,
        steps=5000,
    )
    config.image.pooling = "cls"
    config.image.standardize = False
    config.text.tune = "full"
    config.text.head.name = "linear"
    config.text.pooling = "cls"
    config.text.max_length = 16

    config.cache.views = 0  # A fresh augmentation in every step.
    config.augment.flip = True
    config.augment.randaugment = (2, 10)

    config.loss.scale, config.loss.scale_max = 10.0, 1e4
    config.optim.lr = 1e-3
    config.optim.warmup = 150
    config.optim.weight_decay = 10.0
    config.train.eval_every = max(args.steps // 10, 1)
    config.image.size = 224
    if args.runlocal:  # On the demo's towers and pairs, like the other recipes.
        args.text, args.pairs, config.data.eval = "", "", {}
    return recipes.finish(config, args)
