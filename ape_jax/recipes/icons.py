"""Sixty thousand icons with their names: APE at size, on pairs that any machine with npm can have.

`icons:n=10000` trains on a random sample. Tested on unseen names in the training's sets and on
unseen names in unseen sets (`demo:icons:test_sets`); `icons:validation` is for choosing
hyper-parameters.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    args = config_lib.parse_arg(arg, n=0, epochs=20, validation=False, runlocal=False)
    config = config_lib.default()
    recipes.icons(config, validation=args.validation)
    pairs = args.n or 60_000
    if args.n:
        config.data.pairs = f"demo:icons:train[:{args.n}]"
    config.train.batch = min(1024, pairs)
    config.train.steps = max(args.epochs * pairs // config.train.batch, 2)
    config.train.log_every = max(config.train.steps // 50, 1)
    config.train.checkpoint_every = max(config.train.steps // 4, 1)
    config.optim.lr = 3e-3  # At 1e-3 it is far from trained when the epochs are over.
    config.optim.warmup = config.train.steps // 20

    if args.runlocal:  # Seconds instead of minutes, for tests.
        config.data.pairs = "demo:icons:train[:256]"
        config.data.eval = {"unseen-names": "demo:icons:test[:64]"}
        config.train.batch, config.train.steps, config.train.log_every = 64, 20, 5
        config.train.checkpoint_every, config.optim.warmup = 10, 2
    return config
