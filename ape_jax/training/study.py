"""One config, several methods, several seeds: a table with mean and spread.

Every trained cell is an ordinary work directory (`DIR/ape/seed0`), so it can be resumed, loaded and
evaluated like any other; features are encoded once for all cells.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from ape_jax import config as config_lib
from ape_jax.data.vectors import is_vectors
from ape_jax.errors import UserError
from ape_jax.evaluators import report
from ape_jax.features.store import FeatureStore
from ape_jax.parallel import hosts
from ape_jax.training import baselines, build, loop, workdir
from ape_jax.training import run as run_lib

TRAINED = ("ape", "linear")
CLOSED = ("chance", "pixels", "ridge")
TITLES = {
    "chance": "chance",
    "pixels": "raw pixels, ridge to text",
    "ridge": "ridge, pooled text to image",
    "linear": "linear on pooled text",
    "ape": "APE",
}


def run_study(
    config: ml_collections.ConfigDict, directory: str | os.PathLike[str]
) -> dict[str, Any]:
    """Runs every cell that is not done yet and writes `summary.json` and `table.md`.

    Args:
      config: the experiment; `study.methods` and `study.seeds` span the grid.
      directory: where the cells go.

    Returns:
      `{"methods": {method: {set: {metric: [value a seed]}}}, "images": {set: n}, "digests": ...}`.

    Raises:
      UserError: for methods that the config cannot be run with.
    """
    path = workdir.locate(directory, "study")
    _check(config)
    sources = run_lib.open_sources(config)
    digests = sources.digests()
    done = workdir.read_summary(path, config, "study")
    if done is not None and done.get("digests") == digests:
        return done
    workdir.claim(path, config, "study")
    with workdir.held(path):
        store = FeatureStore()
        run = run_lib.prepare(config, sources, build.load_towers(config), store)
        results = {m: _by_set(_cells(m, run, path, store)) for m in config.study.methods}
        images = {task.name: len(task.dataset.pairs) for task in run.tasks}
        summary = {"methods": results, "images": images, "digests": digests}
        if hosts.is_first():
            workdir.write_text(path / "table.md", tables(summary) + "\n")
        workdir.write_summary(path, summary)
    return summary


def cell_config(
    method: str, seed: int, config: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    """The ordinary config of one trained cell."""
    flat = {**config_lib.flatten(config), "seed": seed}
    flat["optim.lr"] = dict(config.study.lrs).get(method, config.optim.lr)
    flat.update({key: config_lib.SCHEMA[key].default for key in flat if key.startswith("study.")})
    if method == "linear":
        flat["text.head.depth"] = 1  # A token MLP of one layer is linear on mean-pooled text.
    return config_lib.resolve(config_lib.unflatten(flat))


def tables(summary: Mapping[str, Any]) -> str:
    """A Markdown table for each evaluation set: percent, mean and standard deviation over seeds."""
    parts = []
    for name, images in summary["images"].items():
        head = [f"{name} ({images} images)", *map(report.metric_title, report.RETRIEVAL)]
        rows = [
            [TITLES[method], *(_cell(m, sets[name][m]) for m in report.RETRIEVAL)]
            for method, sets in summary["methods"].items()
        ]
        parts.append(report.markdown(head, rows))
    return "\n\n".join(parts)


def _check(config: ml_collections.ConfigDict) -> None:
    """Closed forms need features of both towers, encoded beforehand."""
    frozen = config.image.tune == config.text.tune == "frozen"
    if not (frozen and config.cache.views > 0 and config.cache.text):
        raise UserError(
            "config.study.methods: a study runs on encoded features; it needs image.tune and "
            "text.tune='frozen', cache.views of at least 1 and cache.text=True"
        )
    if config.text.head.name != "token_mlp":
        raise UserError(
            "config.text.head.name: a study compares heads by itself; write 'token_mlp', found "
            f"{config.text.head.name!r}"
        )
    if "pixels" in config.study.methods and is_vectors(config.data.pairs):
        raise UserError("config.study.methods: given vectors have no pixels; leave 'pixels' out")
    if not config.data.eval:
        raise UserError("config.data.eval: a study needs at least one set to evaluate on")
    if not config.study.methods:
        raise UserError("config.study.methods: expected at least one method, found ()")


def _cells(
    method: str, run: run_lib.Run, path: pathlib.Path, store: FeatureStore
) -> list[baselines.Metrics]:
    if method in CLOSED:
        return [_closed(method, run, store)]
    first = run.config.seed
    seeds = range(first, first + run.config.study.seeds)
    return [_trained(method, seed, run.config, path, store) for seed in seeds]


def _closed(method: str, run: run_lib.Run, store: FeatureStore) -> baselines.Metrics:
    if method == "pixels":
        return baselines.pixels(run, store)
    return {"chance": baselines.chance, "ridge": baselines.ridge}[method](run)


def _trained(
    method: str, seed: int, config: ml_collections.ConfigDict, path: pathlib.Path, store: Any
) -> baselines.Metrics:
    summary = loop.train_and_evaluate(
        cell_config(method, seed, config), path / method / f"seed{seed}", store
    )
    metrics: baselines.Metrics = {}
    for key, value in summary.items():
        if key.startswith("eval/"):
            _, name, metric = key.split("/")
            metrics.setdefault(name, {})[metric] = value
    return metrics


def _by_set(cells: list[baselines.Metrics]) -> dict[str, dict[str, list[float]]]:
    return {
        name: {metric: [float(cell[name][metric]) for cell in cells] for metric in report.RETRIEVAL}
        for name in cells[0]
    }


def _cell(metric: str, values: list[float]) -> str:
    text = report.cell(metric, float(np.mean(values)))
    if len(values) == 1:
        return text
    return f"{text} ± {report.cell(metric, float(np.std(values, ddof=1)))}"
