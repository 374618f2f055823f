"""The protocol of STRUCTURE and SOTAlign for the methods here, as a study of frozen towers.

    python tests/benchmarks/yardstick.py --workdir DIR [--imagenet IMAGES]

runs it (`ape-jax study --config yardstick` without the zero-shot part) and prints the published
figures beside ours. Towers: DINOv2 ViT-L/14 and all-roberta-large-v1, both frozen. Pairs: 1,000,
10,000 and 80,000 images of COCO with their captions. Tests: Flickr30k's 1,000 images of Karpathy's
split, and ImageNet by class names. `pairs=` (`tfds:coco_captions:train`, prepared),
`eval=` (`dataset_flickr30k.json:test`), `image=` and `text=` name others; `sizes=` is a list such
as `1000+10000`. It wants a GPU, the data and the hub, and has not been run here on these: its path
is tested on small stand-ins.

Published: Groeger et al., "With Limited Data for Multimodal Alignment, Let the STRUCTURE Guide You"
(arXiv 2506.16895), tens of thousands of pairs; Roschmann et al., "SOTAlign" (arXiv 2602.23353), few
pairs and unpaired images and texts. What is compared here uses the pairs alone.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes
from ape_jax.errors import UserError

# Steps by number of pairs, about a hundred epochs of a thousand pairs and ten of 80 thousand.
_STEPS = {1000: 100, 10_000: 300, 80_000: 800}


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    args = config_lib.parse_arg(
        arg,
        image="hf:facebook/dinov2-large",
        text="hf:sentence-transformers/all-roberta-large-v1",
        pairs="tfds:coco_captions:train",
        eval="dataset_flickr30k.json:test",
        sizes="1000+10000+80000",
        seeds=3,
        runlocal=False,
    )
    config = config_lib.default()
    config.image.tower, config.text.tower = args.image, args.text
    config.data.pairs, config.data.eval = args.pairs, {"flickr30k": args.eval}
    config.image.pooling = "cls+mean"
    config.text.head.depth, config.text.head.width = 2, 1024
    config.cache.views = 1
    config.train.batch, config.train.steps = 4096, 800
    config.train.log_every = config.train.checkpoint_every = 800
    config.optim.lr, config.optim.warmup, config.optim.weight_decay = 1e-3, 80, 0.1

    config.study.sizes = _sizes(args.sizes)
    config.study.steps = tuple((n, s) for n, s in _STEPS.items() if n in config.study.sizes)
    config.study.seeds = args.seeds
    config.study.methods = ("chance", "ridge", "cca", "procrustes", "ape", "cca_start", "few_pairs")
    config.study.reference = "few_pairs"
    if args.runlocal:  # Seconds instead of hours, for tests.
        recipes.emoji(config, validation=True, views=1)
        config.image.size = 56
        config.data.pairs = "demo:twemoji:train[:96]"
        config.data.eval = {"flickr30k": "demo:twemoji:validation"}
        config.augment.crop, config.augment.flip, config.augment.randaugment = (), False, ()
        config.train.batch, config.train.steps, config.optim.warmup = 32, 4, 1
        config.train.log_every = config.train.checkpoint_every = 4
        config.study.methods, config.study.reference = ("chance", "cca"), "cca"
        config.study.sizes, config.study.steps, config.study.seeds = (64,), (), 1
    return config


def _sizes(written: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in str(written).split("+"))
    except ValueError:
        raise UserError(
            f"--config: yardstick takes sizes=1000+10000, whole numbers; found {written!r}"
        ) from None
