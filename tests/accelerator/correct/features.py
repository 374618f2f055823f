"""Features on the device, in the host's memory and on disk: the same losses, bit by bit."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import jax
import numpy as np

from ape_jax import config as config_lib
from ape_jax.training import loop
from tests import tiny_world
from tests.accelerator.correct import runs, same_bits
from tests.accelerator.figures import Figures, say
from tests.accelerator.settings import Settings


def run(settings: Settings, figures: Figures) -> None:
    """Prints whether a bit depends on where features live.

    The part runs with XLA's deterministic operations, and on the device twice: feeds can only be
    compared where a program gives the same bits when it is run again.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        if not jax.config.jax_compilation_cache_dir:  # The programs are the same but for one.
            jax.config.update("jax_compilation_cache_dir", str(root / "compiled"))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        tiny_world.write(root)
        found = {}
        for title, place in _PLACES.items():
            if settings.device == "cpu" and title == _AGAIN:  # Its operations are deterministic.
                continue
            say(f"{title}, {settings.left():.0f} s left")
            config = _config(root, place, settings)
            loop.train_and_evaluate(config_lib.resolve(config), root / title)
            found[title] = runs.losses(root / title), runs.parameters(root / title)
    first = found.pop("device")
    figures.measured("last loss", float(np.float32(first[0][-1])), "")
    for title, (losses, parameters) in found.items():
        steps = sum(a == b for a, b in zip(first[0], losses))
        same = len(first[0]) == len(losses) == steps
        why = f"{steps} of {len(losses)} losses are the same"
        figures.holds(f"losses with features on {title}", same, why)
        same = same_bits(first[1], parameters)
        figures.holds(f"parameters with features on {title}", same, "other bits")


_AGAIN = "device, again"
_PLACES = {"device": "device", _AGAIN: "device", "host": "host", "disk": "disk"}


def _config(root: pathlib.Path, place: str, settings: Settings) -> Any:
    config = tiny_world.config(root, root / "features")
    config.cache.place, config.cache.views, config.augment.flip = place, 2, True
    config.text.head.dropout, config.latent.noise = 0.2, 0.1
    config.text.head.width, config.data.eval = settings.pick(1024, 64), {}
    config.train.steps = settings.pick(200, 8)
    config.train.log_every = settings.pick(10, 1)
    return config
