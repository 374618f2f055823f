"""A run made ready: pairs, towers, model, mesh and features, in the order that fails earliest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, PyTree

from ape_jax.align.model import Model
from ape_jax.data import order
from ape_jax.data.pairs import Pairs, open_pairs
from ape_jax.errors import UserError
from ape_jax.features.encode import FrozenTower
from ape_jax.features.store import FeatureStore, fingerprint
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.towers.tower import Tower
from ape_jax.training import build, optim
from ape_jax.training.dataset import Dataset, encode_pairs, leave_out_unreadable
from ape_jax.training.evaluation import RetrievalTask

# Statistics converge long before this many images.
_STATISTICS_IMAGES = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """The pairs a run reads, opened and checked before anything heavy starts."""

    train: Pairs
    evals: Mapping[str, Pairs]

    def digests(self) -> dict[str, str]:
        """The content of every source: a finished result holds for these pairs only."""
        evals = {f"eval/{name}": pairs.digest for name, pairs in self.evals.items()}
        return {"train": self.train.digest, **evals}


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
    if len(train) < 2:
        raise UserError(
            f"config.data.pairs: {config.data.pairs} holds {len(train)} pair; pairs are told apart "
            "from each other, so give at least 2"
        )
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
    model = build.make_model(config, *towers)
    trainable, frozen = model.init(config.seed)
    optim.check_rules(config.optim, trainable)  # Before hours of encoding.
    frozen = mesh_lib.place_frozen(frozen, mesh, config.mesh.shard_min_size)
    readers = _readers(config, model, frozen, mesh)
    dataset = encode_pairs(
        sources.train,
        readers["image"] if config.cache.views else None,
        readers["text"],
        config,
        store,
        name="training",
        views=config.cache.views,
    )
    # Once more: images that cannot be read may have been left out.
    order.check_batch(len(dataset.pairs), config.train.batch)
    if model.standardize:
        statistics = _statistics(dataset, readers["image"], sources, config, store)
        frozen["statistics"] = mesh_lib.place_replicated(statistics, mesh)
    return Run(
        config=config,
        model=model,
        mesh=mesh,
        trainable=mesh_lib.place_replicated(trainable, mesh),
        frozen=frozen,
        dataset=dataset,
        tasks=_tasks(config, sources, towers, readers, store),
    )


def _tasks(
    config: ml_collections.ConfigDict,
    sources: Sources,
    towers: tuple[Tower, Tower],
    readers: Mapping[str, FrozenTower | None],
    store: FeatureStore,
) -> tuple[RetrievalTask, ...]:
    """The evaluations, their pairs encoded up to the frontier; clean images, one view."""
    image, text = towers
    tasks = []
    for name, pairs in sources.evals.items():
        if readers["image"] is None and config.data.on_error == "skip":
            pairs = leave_out_unreadable(pairs, image.prepare.transform, config, name)
        data = encode_pairs(pairs, readers["image"], readers["text"], config, store, name=name)
        task = RetrievalTask(
            name=name,
            dataset=data,
            transform=image.prepare.transform,
            prepare=text.prepare,
            background=config.data.background,
        )
        tasks.append(task)
    return tuple(tasks)


def meta(
    config: ml_collections.ConfigDict, image: Tower, text: Tower, pairs: Pairs | None = None
) -> dict[str, Any]:
    """What a checkpoint holds instead of towers and data: their names and hashes."""
    found = {
        "image tower": {"spec": config.image.tower, "digest": image.digest},
        "text tower": {"spec": config.text.tower, "digest": text.digest},
        # The same tensors under another tokenizer or image size would be wrong without a word.
        "image preparation": fingerprint(image.prepare.transform),
        "text preparation": fingerprint(text.prepare),
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
        if len(few) > _STATISTICS_IMAGES:  # Spread over the file, which may be sorted.
            chosen = np.linspace(0, len(few) - 1, _STATISTICS_IMAGES).astype(int)
            few = Pairs([few[int(i)] for i in chosen], few.spec)
        pooled = encode_pairs(few, image, None, config, store, name="statistics").pooled
    center, spread = moments(pooled)
    return {"center": center, "spread": spread}


def moments(pooled: Float[np.ndarray, "n V d"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, f32 [d] each, in two passes over blocks in f64.

    The features of a large set fill much of the memory: they are not copied whole.
    """
    count = pooled.shape[0] * pooled.shape[1]
    blocks = range(0, len(pooled), 4096)

    def total(of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        parts = (of(pooled[i : i + 4096].astype(np.float64)).sum(axis=(0, 1)) for i in blocks)
        return sum(parts) / count

    mean = total(lambda x: x)
    spread = np.sqrt(total(lambda x: (x - mean) ** 2))
    # A dimension that never varies must not be blown up.
    return mean.astype(np.float32), np.maximum(spread, 1e-6).astype(np.float32)


def parameter_table(run: Run) -> str:
    """Clu's overview of what is trained, and its share of all parameters."""
    from clu import parameter_overview

    table = parameter_overview.get_parameter_overview(
        jax.tree.map(jnp.asarray, run.trainable), include_stats=False
    )
    trained, frozen = (sum(x.size for x in jax.tree.leaves(t)) for t in (run.trainable, run.frozen))
    share = 100 * trained / (trained + frozen)
    return f"{table}\ntrained: {trained:,} of {trained + frozen:,} parameters ({share:.2f} %)"
