"""A run made ready: pairs, towers, model, mesh and features, in the order that fails earliest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from ape_jax.align.model import Model
from ape_jax.data import order
from ape_jax.data.pairs import Pairs, open_pairs
from ape_jax.errors import UserError
from ape_jax.features.encode import FrozenTower
from ape_jax.features.store import FeatureStore
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.towers.tower import Tower
from ape_jax.training import build
from ape_jax.training.dataset import Dataset, encode_pairs
from ape_jax.training.evaluation import RetrievalTask

# Statistics converge long before this many images.
_STATISTICS_IMAGES = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """The pairs a run reads, opened and checked before anything heavy starts."""

    train: Pairs
    evals: Mapping[str, Pairs]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a training loop needs.

    Attributes:
      config: the resolved config.
      model: the model.
      mesh: the devices.
      trainable: initial trained parameters, on the mesh.
      frozen: frozen parameters on the mesh, statistics included.
      dataset: the training pairs at the frontier.
      tasks: the evaluations.
    """

    config: ml_collections.ConfigDict
    model: Model
    mesh: Mesh
    trainable: PyTree
    frozen: PyTree
    dataset: Dataset
    tasks: tuple[RetrievalTask, ...]


def open_sources(config: ml_collections.ConfigDict) -> Sources:
    """Opens the training and evaluation pairs.

    Raises:
      UserError: for a file that is missing or malformed, or a batch larger than the data.
    """
    train = open_pairs(config.data.pairs, key="data.pairs")
    order.check_batch(len(train), config.train.batch)
    names = sorted(config.data.eval)
    evals = {n: open_pairs(config.data.eval[n], key=f"data.eval.{n}") for n in names}
    return Sources(train=train, evals=evals)


def prepare(
    config: ml_collections.ConfigDict,
    sources: Sources,
    towers: tuple[Tower, Tower],
    store: FeatureStore,
) -> Run:
    """Makes the model, places it on the mesh and encodes what lies below the frontier.

    Args:
      config: the resolved config.
      sources: the pairs.
      towers: the image and the text tower.
      store: features that this process has already.

    Raises:
      UserError: for a layer, pooling, image or caption that cannot be used.
    """
    mesh = mesh_lib.make_mesh()
    if config.train.batch % mesh.devices.size:
        raise UserError(
            f"config.train.batch: {config.train.batch} does not divide over the "
            f"{mesh.devices.size} devices; write {mesh_lib.round_up(config.train.batch, mesh)}"
        )
    image, text = towers
    model = build.make_model(config, image, text)
    trainable, frozen = model.init(config.seed)
    frozen = mesh_lib.place_frozen(frozen, mesh, config.mesh.shard_min_size)
    readers = _readers(config, model, frozen, mesh)
    views = config.cache.views
    in_step = readers["image"] is None or views == 0
    dataset = encode_pairs(
        sources.train,
        None if in_step else readers["image"],
        readers["text"],
        config,
        store,
        name="training",
        views=views,
    )
    if model.standardize:
        frozen["statistics"] = _statistics(dataset, readers["image"], sources, config, store)
    tasks = tuple(
        RetrievalTask(
            name=name,
            dataset=encode_pairs(
                pairs, readers["image"], readers["text"], config, store, name=name
            ),
            transform=image.prepare.transform,
            prepare=text.prepare,
            background=config.data.background,
        )
        for name, pairs in sources.evals.items()
    )
    return Run(
        config=config,
        model=model,
        mesh=mesh,
        trainable=mesh_lib.place_replicated(trainable, mesh),
        frozen={**frozen, **_place_statistics(frozen, mesh)},
        dataset=dataset,
        tasks=tasks,
    )


def meta(
    config: ml_collections.ConfigDict, image: Tower, text: Tower, pairs: Pairs | None = None
) -> dict[str, Any]:
    """What a checkpoint holds instead of towers and data: their names and hashes."""
    found = {
        "image tower": {"spec": config.image.tower, "digest": image.digest},
        "text tower": {"spec": config.text.tower, "digest": text.digest},
    }
    if pairs is not None:
        found["pairs"] = {"spec": config.data.pairs, "digest": pairs.digest}
    return found


def _readers(
    config: ml_collections.ConfigDict, model: Model, frozen: PyTree, mesh: Mesh
) -> dict[str, FrozenTower | None]:
    """The towers whose output is the frontier; None for one that is trained."""
    readers: dict[str, FrozenTower | None] = {}
    for name, side in (("image", model.image), ("text", model.text)):
        if side.frontier == "input":
            readers[name] = None
            continue
        readers[name] = FrozenTower(
            tower=side.tower,
            params=frozen[f"{name}_tower"],
            mesh=mesh,
            layer=side.layer,
            pooling=side.pooling,
            batch=config.eval.batch,
        )
    return readers


def _statistics(
    dataset: Dataset,
    image: FrozenTower,
    sources: Sources,
    config: ml_collections.ConfigDict,
    store: FeatureStore,
) -> dict[str, np.ndarray]:
    """Mean and standard deviation of the training images' features, fixed from here on.

    Images that are encoded in the step have no features yet: clean ones are encoded for this.
    """
    pooled = dataset.pooled
    if pooled is None:
        few = sources.train
        if len(few) > _STATISTICS_IMAGES:
            few = Pairs([few[i] for i in range(_STATISTICS_IMAGES)], few.spec)
        pooled = encode_pairs(few, image, None, config, store, name="statistics").pooled
    flat = pooled.reshape(-1, pooled.shape[-1]).astype(np.float64)
    # A dimension that never varies must not be blown up.
    spread = np.maximum(flat.std(axis=0), 1e-6)
    return {"center": flat.mean(axis=0).astype(np.float32), "spread": spread.astype(np.float32)}


def _place_statistics(frozen: PyTree, mesh: Mesh) -> PyTree:
    if "statistics" not in frozen:
        return {}
    return {"statistics": mesh_lib.place_replicated(frozen["statistics"], mesh)}


def parameter_table(run: Run) -> str:
    """Clu's overview of what is trained, and its share of all parameters."""
    from clu import parameter_overview

    table = parameter_overview.get_parameter_overview(
        jax.tree.map(jnp.asarray, run.trainable), include_stats=False
    )
    trained, frozen = (sum(x.size for x in jax.tree.leaves(t)) for t in (run.trainable, run.frozen))
    share = 100 * trained / (trained + frozen)
    return f"{table}\ntrained: {trained:,} of {trained + frozen:,} parameters ({share:.2f} %)"
