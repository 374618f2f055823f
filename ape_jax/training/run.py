"""A run made ready: pairs, towers, model, mesh and features, in the order that fails earliest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from ape_jax.align.closed_form import Solution
from ape_jax.align.model import Model
from ape_jax.align.subwords import SUBWORDS
from ape_jax.align.tuning import selection
from ape_jax.align.unpaired import TEACHER
from ape_jax.config import Config
from ape_jax.config.rules import HELD_OUT
from ape_jax.data import sampling
from ape_jax.data.pairs import Pairs
from ape_jax.features import frontier
from ape_jax.features.dataset import Dataset, FeatureStore
from ape_jax.features.frontier import Sources
from ape_jax.features.unpaired import Unpaired
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build, forked, imported, provenance, size
from ape_jax.runs.aligned import SOLVED, STATISTICS, AlignedModel
from ape_jax.runs.checkpoints import agreed
from ape_jax.runs.outputs import text_pooling
from ape_jax.terminal import tables as report
from ape_jax.training import optim, solve, step
from ape_jax.training.captions import languages
from ape_jax.training.evaluation import RetrievalTask
from ape_jax.training.statistics import moments
from ape_jax.training.terms import free_pairs, subwords, unpaired
from ape_jax.training.terms.free_pairs import FreeFeatures

C = TypeVar("C", bound=Config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a training loop needs.

    Attributes:
      aligned: the model with its initial parameters, on the mesh; its `meta` is the checkpoints'.
      dataset: the training pairs at the frontier.
      tasks: the evaluations.
      unpaired: features of images and texts without partners.
      teacher: the model, without weights, whose maps are in the aligned model's `frozen` for
        unpaired data to be compared by; None where nothing is.
      free: free pairs of the image tower's classifier, None without.
    """

    aligned: AlignedModel
    dataset: Dataset
    tasks: tuple[RetrievalTask, ...]
    unpaired: Unpaired = dataclasses.field(default_factory=Unpaired)
    teacher: Model | None = None
    free: FreeFeatures | None = None


def assemble(
    config: Config,
    towers: build.Towers,
    pairs: Pairs | None = None,
    digests: Mapping[str, str] | None = None,
) -> AlignedModel:
    """Makes the model with its initial parameters and places it on the mesh.

    Args:
      config: the resolved config.
      towers: the image and the text tower, as they were read.
      pairs: the training pairs, for `meta`.
      digests: of images and texts without partners and of free pairs, likewise.

    Raises:
      UserError: for a layer, pooling, batch or rule that cannot be used.
    """
    agreed.on_towers(provenance.meta(config, towers, pairs), towers.text.prepare)
    mesh = mesh_lib.make_mesh(fsdp=config.mesh.fsdp)
    trained = config.trains
    if trained:
        mesh_lib.check_batch(config.train, mesh)
        if config.unpaired.in_steps:
            mesh_lib.check_divides("unpaired.batch", config.unpaired.batch, mesh)
        if config.classifier.weight:
            mesh_lib.check_divides("classifier.batch", config.classifier.batch, mesh)
    model = build.make_model(config, towers)
    shapes, kept = size.shapes(model, towers.params), ()
    if trained:
        optim.check_rules(config.optim, shapes[0])  # Before hours of encoding.
    mesh_lib.check_rules(config.mesh.rules, mesh, shapes[1], shapes[0])
    if trained:
        kept = step.kept(config, model, mesh, shapes[0])
    trainable, frozen = size.initial(
        config, model, towers.params, mesh, rules=config.mesh.rules, kept=kept
    )
    if config.start.model:
        trainable = imported.start(config, trainable)
    how = config.mesh.shard_min_size, config.mesh.rules
    return AlignedModel(
        config=config,
        model=model,
        trainable=mesh_lib.place_trained(trainable, mesh, *how),
        frozen=mesh_lib.place_frozen(frozen, mesh, *how),
        meta={
            **provenance.meta(config, towers, pairs, digests),
            provenance.SETTINGS: provenance.settings(config),
        },
        mesh=mesh,
    )


def prepare(
    config: Config,
    sources: Sources,
    towers: build.Towers,
    store: FeatureStore,
    solved: Mapping[str, Any] | None = None,
    *,
    resumes: bool = False,
    hold_out: Callable[[Dataset], tuple[Dataset, Dataset]] | None = None,
) -> Run:
    """Makes the model, places it on the mesh and encodes what lies below the frontier.

    Where heads are a closed form, or start from one, they are solved.

    Args:
      config: the resolved config.
      sources: the pairs.
      towers: the image and the text tower, as they were read.
      store: features that this process has already.
      solved: the record of a closed form that was solved before and need not be again, because the
        heads will be restored.
      resumes: whether all that was trained will be restored; else a run with `start.run` starts
        from that run's parameters.
      hold_out: parts the encoded pairs into those that are trained on and those that are evaluated
        on as `HELD_OUT`; None trains on all.

    Raises:
      UserError: for a layer, pooling, image or caption that cannot be used, or a cache that cannot.
    """
    fork = forked.read(config, towers) if config.start.run and not resumes else None
    aligned = assemble(config, towers, sources.train, sources.unpaired_digests())
    model, mesh = aligned.model, aligned.mesh
    readers = frontier.make_readers(config, model, aligned.frozen, mesh, towers.params)
    dataset = frontier.training_part(config, sources, readers).load(config, store)
    without = frontier.unpaired_part(config, sources, readers).load(config, store)
    if config.data.sample:
        dataset = dataset.sample(config.data.sample, config.seed)
    dataset, held_out = (dataset, None) if hold_out is None else hold_out(dataset)
    # Once more: images that cannot be read may have been left out.
    if config.trains:
        sampling.check_batch(len(dataset.pairs), config.train.batch)
    if model.standardize:
        pooled = dataset.pooled
        if pooled is None:  # Encoded in the step: there are no features yet.
            pooled = frontier.statistics_part(sources, readers).load(config, store).pooled
        images = [without.images] if config.unpaired.statistics else []
        center, spread = moments(pooled, *images)
        statistics = {"center": center, "spread": spread}  # Fixed from here on.
        placed = mesh_lib.place_replicated(statistics, mesh)
        aligned = dataclasses.replace(aligned, frozen={**aligned.frozen, STATISTICS: placed})
    if config.data.language:
        aligned, dataset = languages.settled(aligned, towers, dataset)
        model = aligned.model
    free, teacher = free_pairs.prepared(config, sources, readers, store, dataset, aligned), None
    if config.closed_form is not None:
        record = fork.record if fork else solved
        aligned, solution = _solved(aligned, towers, dataset, record, without, free)
        if config.unpaired.klot:
            aligned, teacher = unpaired.with_teacher(aligned, towers, solution)
    if fork is not None:
        aligned = fork.install(aligned)
    if config.subwords.weight:
        aligned = subwords.with_layer(aligned, dataset)
    parts = frontier.evaluation_parts(config, model, sources, readers)
    tasks = [_task(config, model, part.name, part.load(config, store)) for part in parts]
    if held_out is not None:
        tasks.append(_task(config, model, HELD_OUT, held_out))
    return Run(
        aligned=aligned,
        dataset=dataset,
        tasks=tuple(tasks),
        unpaired=without,
        teacher=teacher,
        free=free,
    )


def _solved(
    aligned: AlignedModel,
    towers: build.Towers,
    dataset: Dataset,
    record: Mapping[str, Any] | None,
    without: Unpaired,
    free: FreeFeatures | None,
) -> tuple[AlignedModel, Solution | None]:
    """The model with heads of the sizes that a closed form asks for, and what was solved."""
    config, solution = aligned.config, None
    if record is None:
        pooling = text_pooling.pooling(config, aligned.model.text.tower)
        statistics = aligned.frozen.get(STATISTICS, {})
        image = aligned.model.image
        parts = image.tower.config.pooled_parts(image.pooling)
        solution = solve.solve(config, dataset, statistics, pooling, parts, without, free)
        record = solution.record
    model = build.make_model(config, towers, record)
    model = dataclasses.replace(model, languages=aligned.model.languages)
    heads = model.init_heads(config.seed)
    if solution is not None:
        heads = solve.install(heads, solution, config.closed_form)
    frozen = aligned.frozen
    if model.weights:  # Of heads that will be restored they come from the checkpoint as well.
        ones = np.ones(model.weights, np.float32)
        weights = ones if solution is None else solution.weights
        placed = mesh_lib.place_replicated({"weights": weights}, aligned.mesh)
        frozen = {**frozen, STATISTICS: {**frozen.get(STATISTICS, {}), **placed}}
    how = config.mesh.shard_min_size, config.mesh.rules
    rest = {name: tree for name, tree in aligned.trainable.items() if not name.endswith("_head")}
    trainable = {**rest, **mesh_lib.place_trained(heads, aligned.mesh, *how)}
    meta = {**aligned.meta, SOLVED: dict(record)}
    changed = dataclasses.replace(
        aligned, model=model, trainable=trainable, frozen=frozen, meta=meta
    )
    return changed, solution


def _task(config: Config, model: Model, name: str, dataset: Dataset) -> RetrievalTask:
    return RetrievalTask(
        name=name,
        dataset=dataset,
        transform=model.image.tower.prepare.transform,
        prepare=model.text.tower.prepare,
        background=config.data.background,
        resumed=model.text.frontier == "hidden",
        languages=model.languages,
    )


def parameter_counts(aligned: AlignedModel) -> tuple[int, int]:
    """Numbers of trained and of frozen parameters of the finished model.

    Those of models in other libraries are included.
    """
    lasting = (
        {name: tree for name, tree in part.items() if name not in (TEACHER, SUBWORDS)}
        for part in (aligned.trainable, aligned.frozen)
    )
    trained, frozen = selection.counts(*lasting)
    outside = (side.tower.outside for side in (aligned.model.image, aligned.model.text))
    return trained, frozen + sum(model.parameters() for model in outside if model is not None)


def parameter_table(run: Run, *, full: bool) -> str:
    """How much is trained, in one line.

    Args:
      run: the run.
      full: whether clu's overview of what is trained, and the share of each group of parameters,
        stand above it.
    """
    trees = run.aligned.trainable, run.aligned.frozen
    trained, frozen = parameter_counts(run.aligned)
    share = 100 * trained / (trained + frozen)
    total = f"trained: {trained:,} of {trained + frozen:,} parameters ({share:.2f} %)"
    if not full:
        return total
    from clu import parameter_overview

    table = parameter_overview.get_parameter_overview(trees[0], include_stats=False)
    rows = [share.cells() for share in selection.shares(*trees)]
    return f"{table}\n{report.markdown(selection.SHARE_HEAD, rows)}\n{total}"
