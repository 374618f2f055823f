"""Sixty thousand icons with their names: APE at size, on pairs that any machine with npm can have.

`icons.py:n=10000` trains on a random sample. Tested on unseen names in the training's sets and on
unseen names in unseen sets (`demo:icons:test_sets`); `icons.py:validation` is for choosing
hyper-parameters.
"""

from ape_jax import config as config_lib


def get_config(arg=""):
    args = config_lib.parse_arg(arg, n=0, epochs=20, validation=False, runlocal=False)
    config = config_lib.default()

    config.image.tower = "demo:vit_s14"
    config.image.size = 112
    # These weights were tuned further for saliency: their last blocks carry less than the ninth.
    config.image.layer = 9
    config.image.pooling = "cls+mean"
    config.text.tower = "demo:minilm"
    config.text.head.depth = 2
    config.text.head.width = 1024

    pairs = args.n or 60_000
    config.data.pairs = f"demo:icons:train[:{args.n}]" if args.n else "demo:icons:train"
    config.data.eval = (
        {"validation": "demo:icons:validation"}
        if args.validation
        else {"unseen-names": "demo:icons:test", "unseen-sets": "demo:icons:test_sets"}
    )

    # A drawing has no background and no camera: one clean view.
    config.train.batch = min(1024, pairs)
    config.train.steps = max(args.epochs * pairs // config.train.batch, 2)
    config.train.log_every = max(config.train.steps // 50, 1)
    config.train.checkpoint_every = max(config.train.steps // 4, 1)
    # With this many pairs, rate and temperature matter more than the head's shape: at 1e-3 it is
    # far from trained when the epochs are over.
    config.optim.lr = 3e-3
    config.optim.warmup = config.train.steps // 20
    config.optim.weight_decay = 0.1
    config.optim.lr_mults = ((".*log_scale", 5.0),)

    if args.runlocal:  # Seconds instead of minutes, for tests.
        config.data.pairs = "demo:icons:train[:256]"
        config.data.eval = {"unseen-names": "demo:icons:test[:64]"}
        config.train.batch, config.train.steps, config.train.log_every = 64, 20, 5
        config.train.checkpoint_every, config.optim.warmup = 10, 2
    return config
