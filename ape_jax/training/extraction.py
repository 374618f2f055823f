"""Filling the caches that a run reads, and no more."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.config import Config
from ape_jax.data.table.problems import Problems
from ape_jax.errors import UserError
from ape_jax.features import frontier
from ape_jax.features.cache import Cache
from ape_jax.features.cut import Cut, cut_of
from ape_jax.features.encode_pairs import cache_place
from ape_jax.features.engines import ray
from ape_jax.features.extract import THIS_PROCESS, Filled, fill, lengths_in
from ape_jax.features.frontier import Sources
from ape_jax.features.jobs import CaptionJob, ImageJob, Job
from ape_jax.features.unreadable import unseen
from ape_jax.parallel import hosts
from ape_jax.parallel.actors import RayCluster
from ape_jax.runs import build
from ape_jax.runs.checkpoints import agreed
from ape_jax.runs.directory import layers_record, workdir
from ape_jax.storage import atomic, disk
from ape_jax.terminal import tables as report
from ape_jax.training import layers, run
from ape_jax.training.input import opened
from ape_jax.training.records import left_out


def extract(
    config: Config,
    directory: str | os.PathLike[str],
    cluster: RayCluster | None = None,
    recipe: str = "",
) -> dict[str, Any]:
    """Encodes whatever a run of this config reads from the cache and is not there yet.

    Killed and started again, it goes on with the first shard that was not finished.

    Args:
      config: a resolved config; `cache.missing` does not matter here.
      directory: where `extract.json` is written.
      cluster: the Ray cluster whose actors encode; None for this process, or the processes of a
        cluster of JAX.
      recipe: what `--config` named, whose file may register components; actors read it too.

    Returns:
      The contents of `extract.json`: `{"caches": [...], "seconds": s}`.

    Raises:
      UserError: for anything the user can put right, before anything is encoded where it can be
        known by then.
    """
    start = time.monotonic()
    path, place = workdir.locate(directory), cache_place(config)
    if place.root is None:
        raise UserError(
            "config.cache.dir: 'none' keeps features in memory only; extract needs a directory"
        )
    agreed.on_config(config)
    config, sources = opened.settled(config)
    agreed.on_pairs(sources.digests())
    place, caches = dataclasses.replace(place, missing="encode"), []
    config = config.replace({"cache.missing": "encode"})
    config, chosen = layers.settled(config, sources.train, path)
    found = {"train": sources.train.problems}
    found |= {f"eval/{name}": pairs.problems for name, pairs in sources.evals.items()}
    with contextlib.ExitStack() as stack:
        if cluster is None:
            engine, work = THIS_PROCESS, jobs(config, sources)
        else:
            # One device an actor, and a directory that does not depend on where it runs.
            settled = {"cache.dir": str(place.root), "mesh.fsdp": 1, "mesh.rules": ()}
            arguments = {**config_lib.flatten(config), **settled}, recipe
            engine = stack.enter_context(ray.on_ray(cluster, place.root, remote_jobs, *arguments))
            work = engine.jobs()
        for job in work:
            with disk.write_errors(f"--workdir: {path}"):
                path.mkdir(parents=True, exist_ok=True)
            filled = fill(job, place, engine)
            caches.append(_entry(job.what, filled))
            if isinstance(job, CaptionJob) and (cut := _cut(job, filled.cache)):
                hosts.say(f"{job.what}: {cut}")
            if isinstance(job, ImageJob):
                bad = unseen(job.pairs, filled.seen, job.skipped.problems, job.what)
                found[job.what] = job.pairs.problems.with_images(bad.values())
        if isinstance(engine, ray.OnRay):
            met = [problem for some in engine.skipped.values() for problem in some.values()]
            found["images"] = Problems(images=met)
    left_out.write(path, found)
    summary = {"caches": caches, "seconds": round(time.monotonic() - start, 3)}
    layers_record.write(path, chosen, workdir.AGAIN)
    if hosts.is_first():
        with disk.write_errors(f"--workdir: {path}"):
            atomic.write_json(path / "extract.json", summary)
    return summary


def _cut(job: CaptionJob, cache: Cache) -> Cut | None:
    tower = job.frozen.tower
    return cut_of(tower, job.texts, job.what, None if tower.outside else lengths_in(cache, job))


def jobs(config: Config, sources: Sources) -> Iterator[Job]:
    """The jobs that fill the caches of a run, made ready to encode on this process's devices.

    Args:
      config: a resolved config, settled by its pairs.
      sources: the pairs.

    Yields:
      The jobs in the order in which they can be done: before the next is asked for, the cache of
      the one before must be complete.

    Raises:
      UserError: for a tower or a key that cannot be used; where there is nothing to encode.
    """
    towers = build.load_towers(config)
    made = run.assemble(config, towers)
    readers = frontier.make_readers(config, made.model, made.frozen, made.mesh, towers.params)
    if readers.image is None and readers.text is None:
        raise UserError("config.image.tune: both towers are trained, so there is nothing to encode")
    for part in frontier.all_parts(config, made.model, sources, readers):
        yield from part.jobs(config)


def remote_jobs(flat: Mapping[str, Any], recipe: str) -> Iterator[Job]:
    """The jobs of a run in a process that was given its config only; see `jobs`.

    Args:
      flat: the config, settled, as `config.flatten` gives it.
      recipe: what `--config` named, "" for nothing.
    """
    if recipe:
        recipes.read(recipe)
    config = config_lib.resolve(config_lib.unflatten(flat))
    return jobs(config, opened.sources(config))


def table(summary: Mapping[str, Any]) -> str:
    """The caches in a Markdown table."""
    head = ["features", "items", "left out", "MB", "encoded now", "seconds", "directory"]
    rows = [
        [
            entry["what"],
            f"{entry['items']:,}",
            f"{entry['left_out']:,}",
            f"{entry['bytes'] / 1e6:,.1f}",
            f"{entry['encoded']:,}",
            f"{entry['seconds']:.1f}",
            entry["path"],
        ]
        for entry in summary["caches"]
    ]
    return report.markdown(head, rows)


def _entry(what: str, filled: Filled) -> dict[str, Any]:
    cache = filled.cache
    return {
        "what": what,
        "path": str(cache.path),
        "items": cache.count,
        "left_out": int((~filled.seen).sum()),
        "bytes": sum(shard.size for shard in cache.shards),
        "shards": len(cache.shards),
        "shards_there_before": filled.resumed,
        "encoded": filled.encoded,
        "seconds": round(filled.seconds, 3),
    }
