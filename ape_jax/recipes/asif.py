"""ASIF (arXiv 2210.01738): `asif:image=TOWER,text=TOWER,pairs=FILE[,eval=FILE]`.

Nothing is trained: an image and a text are described by their similarities to the images and the
texts of the pairs themselves, of which only the largest are kept, raised to a power.

Published: the method. How many similarities are kept and to which power are chosen by held-out
pairs here; write `--config.closed.neighbours=K --config.closed.power=P` for others.
Inferred: mean-pooled text, image features standardised, one clean view.
"""

import ml_collections

from ape_jax import config as config_lib
from ape_jax.config import recipes


def get_config(arg: config_lib.Argument = "") -> ml_collections.ConfigDict:
    config, args = recipes.start(arg)
    config.method = "asif"
    return recipes.finish(config, args)
