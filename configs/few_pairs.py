"""The most from few pairs, rather than one paper's method:
`--config configs/few_pairs.py:image=TOWER,text=TOWER,pairs=FILE[,eval=FILE]`.

Linear maps on both sides start from a closed form and are then trained against each other, gently:
a low learning rate, dropout on the features, few steps. Both towers stay frozen. `:runlocal` is the
same on the demo's towers and pairs, in seconds.
"""

from ape_jax import config as config_lib


def get_config(arg=""):
    args = config_lib.parse_arg(
        arg,
        image="",
        text="",
        pairs="",
        eval="",
        batch=256,
        steps=90,
        views=10,
        seed=0,
        runlocal=False,
    )
    config = config_lib.default()
    config.seed = args.seed

    config.image.tower, config.text.tower = args.image, args.text
    config.data.pairs = args.pairs
    config.data.eval = {"eval": args.eval} if args.eval else {}

    config.image.head.name = config.text.head.name = "linear"
    config.start.method = "procrustes"

    # With few images each is encoded in several views once: nothing else brings as much.
    # Vectors that are given (image=features:WIDTH) have the views that they have.
    views = 1 if args.image.startswith("features:") else args.views
    config.cache.views = views
    if views != 1:
        config.augment.crop = (0.4, 1.0)
        config.augment.flip = True
        config.augment.randaugment = (2, 5)

    config.train.batch, config.train.steps = args.batch, args.steps
    config.train.log_every = config.train.checkpoint_every = max(args.steps // 10, 1)
    config.optim.lr = 5e-4
    config.optim.warmup = args.steps // 10
    config.optim.weight_decay = 0.1

    if args.runlocal:
        config.image.tower = args.image or "demo:vit_s14"
        config.image.size, config.image.layer, config.image.pooling = 112, 9, "cls+mean"
        config.text.tower = args.text or "demo:minilm"
        config.data.pairs = args.pairs or "demo:twemoji:train"
        config.data.eval = {"eval": args.eval or "demo:twemoji:validation"}
        config.cache.views = 2
        config.train.batch, config.train.steps, config.optim.warmup = 64, 20, 2
        config.train.log_every, config.train.checkpoint_every = 5, 10
    return config
