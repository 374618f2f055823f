"""Methods side by side on the emoji, for `python -m ape_jax.study`.

Trained on Twemoji; tested on concepts that training never saw, in the same drawing style and in
another (OpenMoji), as in `configs/demo.py`. `study.py:validation` is for choosing. All trained
methods share one learning rate here; a search for each (`study.lrs`) has not been made yet, so that
the order among them is not settled. `--config.study.sizes="(128,512,0)"` adds numbers of pairs, and
`--plots` draws them.
"""

from ape_jax import config as config_lib


def get_config(arg=""):
    args = config_lib.parse_arg(arg, validation=False, runlocal=False)
    config = config_lib.default()

    config.image.tower = "demo:vit_s14"
    config.image.size = 112
    config.image.layer = 9  # See configs/demo.py.
    config.image.pooling = "cls+mean"
    config.text.tower = "demo:minilm"
    config.text.head.depth = 2
    config.text.head.width = 1024

    config.data.pairs = "demo:twemoji:train"
    split = "validation" if args.validation else "test"
    config.data.eval = {
        "same-style": f"demo:twemoji:{split}",
        "style-shift": f"demo:openmoji:{split}",
    }
    config.cache.views = 10
    config.augment.crop = (0.4, 1.0)
    config.augment.flip = True
    config.augment.randaugment = (2, 5)

    config.train.batch = 256
    config.train.steps = 90
    config.train.log_every = 30
    config.train.checkpoint_every = 90
    config.optim.lr = 1e-3
    config.optim.warmup = 9
    config.optim.weight_decay = 0.1

    config.study.methods = (
        *("chance", "ridge", "cca", "procrustes", "asif"),
        *("lookup", "transformer", "pooled_mlp", "linear", "ape", "ape+linear_image"),
        *("cca_start", "few_pairs"),
    )
    config.study.seeds = 3
    # A transformer of one layer, as wide as the others are deep.
    config.study.set = (("transformer", "text.head.depth", 1),)

    if args.runlocal:  # Seconds instead of minutes, for tests.
        config.image.size = 56
        config.data.pairs = "demo:twemoji:train[:96]"
        config.cache.views = 2
        config.train.batch, config.train.steps, config.optim.warmup = 32, 4, 1
        config.study.methods = ("chance", "cca", "ape")
        config.study.seeds = 1
    return config
