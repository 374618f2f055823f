"""ASIF (arXiv 2210.01738): `asif.py:image=TOWER,text=TOWER,pairs=FILE[,eval=FILE]`.

Nothing is trained: an image and a text are described by their similarities to the images and the
texts of the pairs themselves, of which only the largest are kept, raised to a power.

Published: the method. How many similarities are kept and to which power are chosen by held-out
pairs here; write `--config.closed.neighbours=K --config.closed.power=P` for others.
Inferred: mean-pooled text, image features standardised, one clean view.
"""

from ape_jax import config as config_lib


def get_config(arg=""):
    args = config_lib.parse_arg(arg, image="", text="", pairs="", eval="", seed=0, runlocal=False)
    config = config_lib.default()
    config.seed = args.seed
    config.method = "asif"

    config.image.tower, config.text.tower = args.image, args.text
    config.data.pairs = args.pairs
    config.data.eval = {"eval": args.eval} if args.eval else {}

    if args.runlocal:  # Seconds on the demo's towers and pairs, for tests.
        config.image.tower, config.image.size = "demo:vit_s14", 84
        config.text.tower, config.data.pairs = "demo:minilm", "demo:twemoji:train"
        config.train.batch = 64
    return config
