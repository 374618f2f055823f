"""Kill -9 in the middle of a run: the same command ends with the bits of an undisturbed one."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

from tests import tiny_world
from tests.accelerator.correct import apart, runs, same_bits
from tests.accelerator.figures import Figures, say
from tests.accelerator.settings import Settings

DETERMINISTIC = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}


def run(settings: Settings, figures: Figures) -> None:
    """Prints whether the bits are the same, with XLA's deterministic operations and without."""
    for recipe in ("ape",) if settings.small else ("ape", "clip"):
        if settings.device == "gpu":
            compared(recipe, settings, figures, deterministic=True)
        # A TPU and a processor sum in one order in any case.
        compared(recipe, settings, figures, deterministic=False)
    if settings.device != "gpu":
        figures.left_out("deterministic operations", "XLA has them for GPUs")


def compared(recipe: str, settings: Settings, figures: Figures, *, deterministic: bool) -> None:
    """Trains once undisturbed and once with a kill, both at the same time, and compares."""
    say(f"{recipe}, deterministic: {deterministic}, {settings.left():.0f} s left")
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        tiny_world.write(root)
        path = tiny_world.write_config(config_of(recipe, root), root)
        more = DETERMINISTIC if deterministic else None
        whole = runs.start(path, root / "whole", settings.device, more)
        runs.kill_after(runs.start(path, root / "cut", settings.device, more), root / "cut", 5)
        reached = runs.steps(root / "cut")
        runs.finish(whole, runs.start(path, root / "cut", settings.device, more))
        left, found = (runs.parameters(root / name) for name in ("whole", "cut"))
    off = apart(found, left)
    title = f"{recipe}, killed after step {reached[-1]}"
    if deterministic or settings.device != "gpu":
        words = " with deterministic operations" if deterministic else ""
        why = f"off by {off:.2g} of the largest value"
        figures.holds(title + words, same_bits(left, found), why)
    else:
        needed = "the same bits" if same_bits(left, found) else f"off by {off:.2g}, so needs them"
        figures.measured(f"{title} without deterministic operations", needed, "")


def config_of(recipe: str, root: pathlib.Path) -> Any:
    """A run of 30 steps with a checkpoint every five, one call of the device a step."""
    config = tiny_world.config(root, root / "features")
    config.train.steps, config.train.checkpoint_every, config.train.steps_per_call = 30, 5, 1
    config.data.eval = {}
    if recipe == "clip":  # The gradient of an embedding table is a scatter, whose order may vary.
        config.image.tune = config.text.tune = "full"
        config.image.standardize = False
    else:
        config.text.head.dropout = 0.2
    return config
