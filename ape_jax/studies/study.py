"""Runs one config with several methods, numbers of pairs and seeds; tables of mean and spread.

A cell is one method with one number of pairs and one seed. Every cell that is a run has an ordinary
work directory (`DIR/ape/seed0`, `DIR/ape/n1000/seed0`), so it can be resumed, loaded and evaluated
like any other; features are encoded once for all cells.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax

from ape_jax import config as config_lib
from ape_jax.config import Config, schema
from ape_jax.config.outside import is_precomputed
from ape_jax.errors import UserError
from ape_jax.evaluators.languages import JOINT
from ape_jax.features.dataset import FeatureStore
from ape_jax.parallel import hosts
from ape_jax.runs import build
from ape_jax.runs.checkpoints import agreed, saving
from ape_jax.runs.directory import claim, layers_record, summaries, workdir
from ape_jax.storage import atomic, disk
from ape_jax.studies import baselines, cells, domains, intervals
from ape_jax.studies import tables as study_tables
from ape_jax.studies.config import StudyConfig
from ape_jax.studies.methods import METHODS
from ape_jax.terminal import tables as report
from ape_jax.training import layers, loop
from ape_jax.training import run as run_lib
from ape_jax.training.input import opened

_OWN_GROUPS = ("closed.", "start.", "method", "data.sample")  # Of a cell, not the study.


def run_study(config: StudyConfig, directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Runs every cell that is not done yet and writes `summary.json` and `table.md`.

    Layers and poolings that the config leaves open are chosen once, by all training pairs, for all
    methods and sizes; with domains, for each of them.

    Args:
      config: the experiment; `study.methods`, `study.sizes` and `study.seeds` span the grid.
      directory: where the cells go.

    Returns:
      `{"methods": {method: {set: {metric: [value a seed]}}}, "images": {set: n}, "digests": of the
      pairs, "config": its digest, "costs": {method: {"trained": parameters, "share": of all,
      "seconds": of a run}}}`; with sizes, these are of the last one and `sizes` holds
      `{size: methods}` of all. With `study.reference`, `differences` holds `{"reference": method,
      "sizes": {size: {set: {method: [reference minus it, low, high]}}}}` in points of R@10. With
      `study.domains` all this is over the domains, and each has its own in `DIR/<domain>`.

    Raises:
      UserError: for methods that the config cannot be run with.
    """
    path = workdir.locate(directory, "study")
    agreed.on_config(config)
    _check(config)
    if config.study.domains:
        return _over_domains(config, path)
    config, sources = opened.settled(config)
    _check_sizes(config, len(sources.train))
    digests = sources.digests()
    agreed.on_pairs(digests)
    store = FeatureStore()
    config, chosen = layers.settled(config, sources.train, path, store)
    done = workdir.read_summary(path, config, "study")
    same = {"digests": digests, "config": config_lib.digest(config)}
    ended = done is not None and {key: done.get(key) for key in same} == same
    agreed.on_workdir(finished_study=ended)
    if done is not None and ended:
        # A file's keys are in the order of the alphabet; tables are to be as they were.
        return _in_order(done, [config.study.methods, [*config.data.eval]])
    with claim.claimed(path, config, "study"):
        layers_record.write(path, chosen, workdir.AGAIN)
        there = saving.Place(path)
        run = run_lib.prepare(config, sources, build.load_towers(config), store)
        shared = {"store": store, "sources": sources}  # Read and encoded once for all cells.
        run_cells = partial(_cells, config, run, shared, path, there)
        sizes = {
            size: {m: _by_set(run_cells(m, size)) for m in config.study.methods}
            for size in config.study.sizes or (0,)
        }
        summary = {
            "methods": list(sizes.values())[-1],
            "images": {name: n for task in run.tasks for name, n in task.images.items()},
            **same,
            "costs": _costs(config, path) if hosts.is_first() else {},
        }
        if config.study.sizes:
            pairs = len(run.dataset.pairs)
            summary["sizes"] = {str(size or pairs): rows for size, rows in sizes.items()}
        if config.study.reference and hosts.is_first():
            summary["differences"] = intervals.of_study(
                config, [path], [*summary.get("sizes", ("all",))]
            )
        _write(path, summary)
    return summary


def _in_order(value: Any, orders: Sequence[Sequence[str]]) -> Any:
    """Nested mappings whose keys are all of one of the orders, in that order.

    A set's figures by language, `SET:LANGUAGE`, stand behind those of the set.
    """
    if not isinstance(value, Mapping):
        return value
    of = {key: key.partition(JOINT)[0] for key in value}
    order = next((order for order in orders if set(of.values()) <= set(order)), ())
    keys = sorted(value, key=lambda key: order.index(of[key])) if order else value
    return {key: _in_order(value[key], orders) for key in keys}


def _write(path: pathlib.Path, summary: dict[str, Any]) -> None:
    if hosts.is_first():
        with disk.write_errors(f"--workdir: {path / 'table.md'}", again=workdir.AGAIN):
            atomic.write_text(path / "table.md", study_tables.tables(summary) + "\n")
    workdir.write_summary(path, summary)


def _over_domains(config: StudyConfig, path: pathlib.Path) -> dict[str, Any]:
    """Runs the study of each domain, and writes the tables of all."""
    each = domains.configs(config)
    with claim.claimed(path, config, "study"):
        found = {name: run_study(one, path / name) for name, one in each.items()}
        summary = {
            **domains.merge(list(found.values()), config.study.sizes),
            "digests": {
                f"{n}/{key}": v for n, s in found.items() for key, v in s["digests"].items()
            },
            "config": config_lib.digest(config),
        }
        if config.study.reference and hosts.is_first():
            places, sizes = [path / name for name in each], [*summary.get("sizes", ("all",))]
            summary["differences"] = intervals.of_study(config, places, sizes)
        _write(path, summary)
    return summary


def cell_config(method: str, seed: int, config: StudyConfig, size: int = 0) -> Config:
    """Makes the ordinary config of one cell.

    Args:
      method: a key of `METHODS` that is a run.
      seed: seed of the sample of pairs and of the training.
      config: the study's config.
      size: number of training pairs, 0 for all.

    Raises:
      UserError: naming the key, for settings that do not go together.
    """
    flat = {**config_lib.flatten(config), "seed": seed, "data.sample": size}
    overrides: dict[str, Any] = {**(METHODS[method].overrides or {})}
    if method in (lrs := dict(config.study.lrs)):
        overrides["optim.lr"] = lrs[method]
    overrides |= {key: value for name, key, value in config.study.set if name == method}
    known = schema.keys(Config)
    own = [key for key in flat if key.startswith(_OWN_GROUPS) and key != "data.sample"]
    for side in ("image", "text"):  # A head of another name takes other keys.
        name = config.side(side).head.name
        if overrides.get(f"{side}.head.name", name) != name:
            own += [key for key in flat if key.startswith(f"{side}.head.")]
    flat |= {key: known[key].default for key in own}
    flat |= _scaled(config, size)
    if config.study.reference:
        flat["eval.ranks"] = True
    return config_lib.resolve(config_lib.unflatten({**flat, **overrides}))


def _scaled(config: StudyConfig, size: int) -> dict[str, Any]:
    """Returns the keys of batch and schedule for a sample of that size."""
    if not size:
        return {}
    train, steps = config.train, dict(config.study.steps).get(size, config.train.steps)
    share, devices = steps / train.steps, jax.device_count()
    every = train.checkpoint_every and max(round(train.checkpoint_every * share), 1)
    return {
        "train.batch": min(train.batch, max(size // devices, 1) * devices),
        "train.steps": steps,
        "train.checkpoint_every": every,
        "optim.warmup": min(round(config.optim.warmup * share), steps - 1),
    }


def _check(config: StudyConfig) -> None:
    """Raises UserError for a config that makes no study, before its first cell."""
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
    for key, neutral in (("method", "train"), ("start.method", "none"), ("data.sample", 0)):
        found = config_lib.flatten(config)[key]
        if found != neutral:
            raise UserError(
                f"config.{key}: a study sets it in each of its runs; write {neutral!r}, found "
                f"{found!r}"
            )
    if "pixels" in config.study.methods and is_precomputed(config.data.pairs):
        raise UserError("config.study.methods: given vectors have no pixels; leave 'pixels' out")
    if "pixels" in config.study.methods and config.data.language:
        raise UserError(
            "config.study.methods: 'pixels' has no figures by language; leave it out, or write "
            "data.language=''"
        )
    if not config.data.eval:
        raise UserError("config.data.eval: a study needs at least one set to evaluate on")
    if not config.study.methods:
        raise UserError("config.study.methods: expected at least one method, found ()")
    reference = config.study.reference
    runs = [name for name in config.study.methods if METHODS[name].overrides is not None]
    if reference and reference not in runs:
        raise UserError(
            f"config.study.reference: write one of study.methods that is a run, {', '.join(runs)}; "
            f"found {reference!r}"
        )
    for method in config.study.methods:  # Hours before its first cell.
        if METHODS[method].overrides is not None:
            for size in config.study.sizes or (0,):
                cell_config(method, config.seed, config, size)


def _check_sizes(config: StudyConfig, pairs: int) -> None:
    if too_many := [size for size in config.study.sizes if size > pairs]:
        raise UserError(
            f"config.study.sizes: there are {pairs} training pairs, found {too_many[0]}; "
            "0 stands for all"
        )


def _cells(
    config: StudyConfig,
    run: run_lib.Run,
    shared: Mapping[str, Any],
    path: pathlib.Path,
    there: saving.Place,
    name: str,
    size: int,
) -> list[baselines.Metrics]:
    """Runs the cells of one method and size, one a seed; a single one if the seed has no effect."""
    method, seeds = METHODS[name], cells.seeds_of(config, name, size)
    if method.overrides is None:
        return [_without_run(name, _sampled(run, size, seed), shared["store"]) for seed in seeds]
    configs = {seed: cell_config(name, seed, config, size) for seed in seeds}
    found = []
    for seed, cell in configs.items():
        there.check()  # A run would make the study's directory anew for itself.
        place = cells.directory_of(path, name, size, seed)
        found.append(_metrics(loop.train_and_evaluate(cell, place, **shared)))
    return found


def _costs(config: StudyConfig, path: pathlib.Path) -> dict[str, dict[str, float]]:
    """Reads the cost of each method from its run of the last size and the first seed."""
    size, costs = (config.study.sizes or (0,))[-1], {}
    for name in config.study.methods:
        if METHODS[name].overrides is not None:
            place = cells.directory_of(path, name, size, config.seed)
            found, damage = summaries.read(place)
            if found is None or (damage := damage or summaries.missing(found)):
                raise UserError(f"--workdir: {place} has a damaged summary ({damage}); delete it")
            trained, frozen = found["parameters_trained"], found["parameters_frozen"]
            share, seconds = trained / (trained + frozen), found["seconds_last_start"]
            costs[name] = {"trained": trained, "share": share, "seconds": seconds}
    return costs


def _sampled(run: run_lib.Run, size: int, seed: int) -> run_lib.Run:
    return dataclasses.replace(run, dataset=run.dataset.sample(size, seed)) if size else run


def _without_run(name: str, run: run_lib.Run, store: FeatureStore) -> baselines.Metrics:
    return baselines.pixels(run, store) if name == "pixels" else baselines.chance(run)


def _metrics(summary: dict[str, Any]) -> baselines.Metrics:
    metrics: baselines.Metrics = {}
    for key, value in summary.items():
        if key.startswith("eval/"):
            _, name, metric = key.split("/")
            metrics.setdefault(name, {})[metric] = value
    return metrics


def _by_set(runs: list[baselines.Metrics]) -> dict[str, dict[str, list[float]]]:
    return {
        name: {metric: [float(run[name][metric]) for run in runs] for metric in report.RETRIEVAL}
        for name in runs[0]
    }
