"""Settles the number of steps by held-out folds: trains on each, keeps the curves, chooses."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ape_jax.config import Config
from ape_jax.errors import Preempted, UserError
from ape_jax.features import frontier
from ape_jax.features.dataset import FeatureStore
from ape_jax.features.frontier import Sources
from ape_jax.parallel import hosts, verdicts
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.parallel.preemption import Preemption
from ape_jax.runs import build
from ape_jax.runs.directory import folds_record, workdir
from ape_jax.runs.embed import Embedder
from ape_jax.storage import files
from ape_jax.terminal.progress import Progress
from ape_jax.training import run as run_lib
from ape_jax.training.evaluation import RetrievalTask
from ape_jax.training.folds import choice
from ape_jax.training.folds.fixed import follow
from ape_jax.training.folds.split import Fold, split
from ape_jax.training.layers.question import domain_digest

C = TypeVar("C", bound=Config)
Record = dict[str, Any]


def settled(
    config: C,
    sources: Sources,
    towers: build.Towers,
    store: FeatureStore,
    path: pathlib.Path,
) -> tuple[C, int | None]:
    """The config with the number of steps that held-out folds choose; says what it is.

    Each finished fold is kept in `folds.json`: a start that was killed goes on with the next one.
    Several processes train together, and take the record of the first.

    Args:
      config: a resolved config.
      sources: its pairs.
      towers: its towers.
      store: features that this process has already; the folds share them.
      path: the work directory, which this start holds.

    Returns:
      The config, whose `train.steps` and warm-up are those of the run on all pairs, and the number
      of steps; None where nothing is chosen. With no steps the config is as it was.

    Raises:
      UserError: for pairs too few for the folds; for a loss that is no longer finite.
      Preempted: where SIGTERM asked for the end; the finished folds are saved.
    """
    if not config.train.folds:
        return config, None
    digests = {**sources.digests(), "domain": domain_digest(config, sources.train)}
    question = folds_record.asked(config, {name: x for name, x in digests.items() if x})
    record = _of_first(folds_record.read(path, question) if hosts.is_first() else None)
    if record is None or "chosen" not in record:
        record = _chosen(config, sources, towers, store, path, record or {"asked": question})
    steps = int(record["chosen"])
    return (of_length(config, steps) if steps else config), steps


def of_length(config: C, steps: int) -> C:
    """The config of a run of so many steps; the warm-up keeps its share."""
    warmup = config.optim.warmup * steps // config.train.steps
    return config.replace({"train.steps": steps, "optim.warmup": warmup})


def _of_first(record: Mapping[str, Any] | None) -> Record | None:
    """The first process's record, on all of them, as it is read from the file."""
    text = verdicts.from_first("" if record is None else json.dumps(record))
    return files.parse_json(text, folds_record.FILE) if text else None


def _chosen(
    config: Config,
    sources: Sources,
    towers: build.Towers,
    store: FeatureStore,
    path: pathlib.Path,
    record: Record,
) -> Record:
    """Trains on the folds that the record lacks, and chooses; the record is on the disk."""
    folds = _folds(config, sources, towers, store)
    start = _start(config)
    points = choice.points(config.train.steps, starts=bool(start))
    record = {"folds": [], **record, "steps": points}
    train = dataclasses.replace(sources, evals={})
    with Preemption() as preemption:
        for number in range(len(record["folds"]), len(folds)):
            fold = folds[number]
            what = f"fold {number + 1} of {len(folds)}"
            part = of_fold(config, fold)
            run = run_lib.prepare(part, train, towers, store, hold_out=fold)
            recall = _curve(run, points, what, preemption.requested)
            del run  # Its arrays make room for the next one's.
            counts = {"train": len(fold.train), "held_out": len(fold.held_out)}
            made = {**counts, "batch": part.train.batch, "crosses": fold.crosses, "recall": recall}
            record = _of_first({**record, "folds": [*record["folds"], made]}) or {}
            folds_record.write(path, record, workdir.AGAIN)
    found = choice.choose(points, [fold["recall"] for fold in record["folds"]])
    record = _of_first({**record, **choice.record(found, start)}) or {}
    folds_record.write(path, record, workdir.AGAIN)
    _say(config, record)
    return record


def _folds(
    config: Config, sources: Sources, towers: build.Towers, store: FeatureStore
) -> list[Fold]:
    """The folds of the encoded pairs: which images can be read is known by then."""
    aligned = run_lib.assemble(config, towers, sources.train, sources.unpaired_digests())
    readers = frontier.make_readers(
        config, aligned.model, aligned.frozen, aligned.mesh, towers.params
    )
    dataset = frontier.training_part(config, sources, readers).load(config, store)
    if config.data.sample:
        dataset = dataset.sample(config.data.sample, config.seed)
    return split(config, dataset, sources.train)


def of_fold(config: C, fold: Fold) -> C:
    """The config of a run on a fold, whose batch is at most the fold's number of pairs.

    Raises:
      UserError: where a smaller batch cannot be cut as the config asks.
    """
    unit = mesh_lib.make_mesh().size * (2 if config.latent.mixup else 1)
    batch = min(config.train.batch, len(fold.train) // unit * unit)
    if batch == config.train.batch:
        return config
    cut = config.train.micro_batch not in (0, config.train.batch)
    if not batch or cut or config.loss.negatives == "local":
        raise UserError(
            f"config.train.folds: a fold trains on {len(fold.train)} pairs, fewer than "
            f"train.batch={config.train.batch}; write a smaller batch, or train.folds=0"
        )
    return config.replace({"train.batch": batch, "train.micro_batch": 0})


def _curve(
    run: run_lib.Run, points: list[int], what: str, requested: Callable[[], bool]
) -> list[float]:
    """Held-out R@10, the mean of both directions, after each number of steps."""
    (task,), aligned = run.tasks, run.aligned
    config = aligned.config
    embedder = Embedder(aligned.model, aligned.mesh, config.eval.batch)
    steps, recall = config.train.steps, []
    progress = Progress(what, steps, "pairs", config.train.batch, compiles=True)
    for state in follow(run, choice.spacing(steps)):
        if (step := int(state.step)) in points:
            recall.append(_recall(task, embedder, state.evaluated, aligned.frozen))
            progress.update(step, f"held-out R@10 {100 * recall[-1]:.1f} %")
        if requested():
            raise Preempted(
                f"asked to end in {what}, at step {step} of {steps}; the same command goes on "
                "after the folds that are finished"
            )
    return recall


def _recall(task: RetrievalTask, embedder: Embedder, trainable: Any, frozen: Any) -> float:
    metrics = task.rank(embedder, trainable, frozen).metrics()
    return (metrics["i2t_r10"] + metrics["t2i_r10"]) / 2


def _start(config: Config) -> str:
    """What the heads are before the first step, where that is worth keeping; else ''."""
    if config.start.method != "none":
        return f"the closed form of start.method={config.start.method!r}"
    return f"the model of start.model={config.start.model!r}" if config.start.model else ""


def _say(config: Config, record: Record) -> None:
    """Says in two lines what was found and what follows."""
    mean = dict(zip(record["steps"], record["mean"], strict=True))
    best, chosen = record["best"], record["chosen"]

    def at(step: int) -> str:
        return f"{100 * mean[step]:.1f} % at step {step}"

    shown = sorted({record["steps"][0], chosen, best, config.train.steps})
    count = len(record["folds"])
    hosts.say(f"folds: {count} of them, held-out R@10 {', '.join(at(step) for step in shown)}")
    then = f"all pairs are trained on for {chosen}" if chosen else "it is kept and not trained"
    hosts.say(f"folds: {record['why']}; {then} ({folds_record.FILE})")
