"""Matryoshka: what embeddings keep that are cut to their first numbers, with and without training.

    python tests/benchmarks/widths.py [--test] [--dims "64,128,256"] [--widths 16,32,64,128,256]
        [--seeds 3] [--workdir DIR] [--config.KEY=VALUE ...]

trains `few_pairs` on the demo's emoji with each list of dims (the empty one is the loss of all
numbers alone) and solves CCA, cuts what they embed, and prints a Markdown table and one JSON line:
R@10, mean of both directions, at each width in percent of that at the full one, on the validation
concepts (`--test`: on the test's). Cells that are done in DIR are not run again.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.config import Config
from ape_jax.evaluators import retrieval
from ape_jax.features.dataset import FeatureStore
from ape_jax.runs import build
from ape_jax.runs.embed import Embedder
from ape_jax.runs.restore import restore
from ape_jax.studies.methods import METHODS
from ape_jax.terminal import tables as report
from ape_jax.training import loop
from ape_jax.training import run as run_lib
from ape_jax.training.input import opened

Figures = dict[str, dict[int, list[float]]]  # By set and width, one a seed.


def main() -> None:
    """Runs every cell and prints the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--dims", nargs="*", default=["64,128,256"])
    parser.add_argument("--widths", default="16,32,64,128,256")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workdir", help="where cells are kept; a temporary directory")
    flags, overrides = parser.parse_known_args()
    widths, store = _numbers(flags.widths), FeatureStore()
    methods: dict[str, Mapping[str, Any]] = {"CCA": {**METHODS["cca"].overrides, "closed.l2": 1.0}}
    methods["CCA"] = {**methods["CCA"], "closed.power": 1.0, "embed": 384}
    for dims in ("", *flags.dims):
        title = f"few_pairs, loss.dims=({dims})"
        methods[title] = {**METHODS["few_pairs"].overrides, "loss.dims": _numbers(dims)}
    with tempfile.TemporaryDirectory(prefix="ape_jax_widths_") as temporary:
        folder = pathlib.Path(flags.workdir or temporary)
        found: dict[str, Figures] = {}
        for title, settings in methods.items():
            seeds = range(flags.seeds if "method" not in settings else 1)
            for seed in seeds:
                config = _config(settings, seed, overrides, test=flags.test)
                cell = folder / title.replace(" ", "_") / f"seed{seed}"
                _measure(config, cell, store, widths, found.setdefault(title, {}))
    print(table(found), flush=True)
    print(json.dumps({"benchmark": "widths", "r10": found}))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, filter(None, text.split(","))))


def _config(
    settings: Mapping[str, Any], seed: int, overrides: Sequence[str], *, test: bool
) -> Config:
    config = recipes.read("demo" if test else "demo:validation")
    config.seed = seed
    pairs = (text.removeprefix("--config.").split("=", 1) for text in overrides)
    config_lib.override(config, dict(pairs))
    return config_lib.resolve({**config_lib.flatten(config_lib.resolve(config)), **settings})


def _measure(
    config: Config,
    cell: pathlib.Path,
    store: FeatureStore,
    widths: Sequence[int],
    found: Figures,
) -> None:
    """Trains one cell and adds its R@10 at every width to `found`."""
    config, sources = opened.settled(config)
    loop.train_and_evaluate(config, cell, store, sources)
    made, aligned = (
        run_lib.prepare(config, sources, build.load_towers(config), store),
        restore(cell),
    )
    embedder = Embedder(aligned.model, aligned.mesh, 256)
    for task in made.tasks:
        zimg, ztxt, owner = task.embed(embedder, aligned.trainable, aligned.frozen)
        by_width = found.setdefault(task.name, {})
        for width in (*widths, zimg.shape[1]):
            cut = (z[:, :width] for z in (zimg, ztxt))
            unit = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in cut)
            metrics = retrieval.retrieval_metrics(*unit, owner)
            r10 = float(metrics["i2t_r10"] + metrics["t2i_r10"]) / 2
            by_width.setdefault(width, []).append(round(r10, 4))


def table(found: Mapping[str, Figures]) -> str:
    """R@10 of all numbers, and the share of it that each width keeps, in Markdown."""
    some = next(iter(next(iter(found.values())).values()))
    *widths, full = some
    head = ["pairs", "method", f"R@10 of {full}", *(f"kept of {width}, %" for width in widths)]
    rows = []
    for name in next(iter(found.values())):
        for title, figures in found.items():
            *short, whole = (np.array(values) for values in figures[name].values())
            cells = [_spread(100 * values / whole) for values in short]
            rows.append([name, title, _spread(100 * whole), *cells])
    return report.markdown(head, rows)


def _spread(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"


if __name__ == "__main__":
    main()
