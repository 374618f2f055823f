"""Pairs and frozen encoders of a run: what is encoded beforehand, and by which tower."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from ape_jax.align.model import Model, Side
from ape_jax.config import Config
from ape_jax.config.outside import is_precomputed
from ape_jax.data.classes.free_pairs import FreePairs
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.unpaired import UnpairedTexts
from ape_jax.features.dataset import Dataset, FeatureStore
from ape_jax.features.encode import FrozenTower
from ape_jax.features.encode_pairs import cache_place, encode_pairs, jobs_of
from ape_jax.features.encoder import FeatureEncoder
from ape_jax.features.jobs import Job
from ape_jax.features.outside import OutsideTower
from ape_jax.features.unpaired import UnpairedPart
from ape_jax.features.unpaired.free_pairs import FreePart
from ape_jax.features.unreadable import leave_out_unreadable
from ape_jax.parallel import mesh as mesh_lib

# Statistics converge long before this many images.
_STATISTICS_IMAGES = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """The pairs a run reads, opened and checked before anything heavy starts.

    Attributes:
      train: the training pairs.
      evals: the evaluation sets by name.
      images: unpaired images, None where there are none.
      texts: unpaired texts, likewise.
      free: free pairs of the image tower's classifier, likewise.
    """

    train: Pairs
    evals: Mapping[str, Pairs]
    images: Pairs | None = None
    texts: UnpairedTexts | None = None
    free: FreePairs | None = None

    def digests(self) -> dict[str, str]:
        """The content of every source: a finished result holds for these pairs only."""
        evals = {f"eval/{name}": pairs.digest for name, pairs in self.evals.items()}
        return {"train": self.train.digest, **evals, **self.unpaired_digests()}

    def unpaired_digests(self) -> dict[str, str]:
        """The content of what is trained on beside the pairs, by key or section."""
        found = {"images": self.images, "texts": self.texts, "classifier": self.free}
        return {name: source.digest for name, source in found.items() if source is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Readers:
    """The towers that encode up to the frontier; None where that is the raw input, or given."""

    image: FeatureEncoder | None
    text: FeatureEncoder | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Pairs, and the towers that encode them beforehand.

    Attributes:
      name: for progress lines; of an evaluation, its own.
      pairs: the records.
      image: the image tower, None where images are not encoded beforehand.
      text: the text tower, None where captions are not.
      views: of each image.
      words: see `augment.words`; () adds no captions.
      negatives: whether negative captions are encoded, too.
      dtype: of the features, None for the config's.
    """

    name: str
    pairs: Pairs
    image: FeatureEncoder | None
    text: FeatureEncoder | None
    views: int = 1
    words: tuple[int, float] | tuple[()] = ()
    negatives: bool = False
    dtype: str | None = None

    def load(self, config: Config, store: FeatureStore) -> Dataset:
        """The pairs with their features; see `encode_pairs`."""
        return encode_pairs(self.pairs, self.image, self.text, config, store, **self._settings)

    def jobs(self, config: Config) -> Iterator[Job]:
        """The jobs that fill the caches which `load` reads; see `jobs_of`."""
        return jobs_of(self.pairs, self.image, self.text, config, **self._settings)

    @property
    def _settings(self) -> dict[str, Any]:
        names = ("name", "views", "words", "negatives", "dtype")
        return {name: getattr(self, name) for name in names}


def make_readers(
    config: Config,
    model: Model,
    frozen: PyTree,
    mesh: Mesh,
    towers: Mapping[str, PyTree],
) -> Readers:
    """The frozen towers, ready to encode.

    Processes that fill a cache on disk share its shards and work apart, each on its own devices;
    otherwise all of them encode everything together on the mesh.

    Args:
      config: the resolved config.
      model: the model.
      frozen: its frozen parameters on the mesh.
      mesh: the devices.
      towers: the towers' parameters on the host, as for `Model.init`.
    """
    apart = jax.process_count() > 1 and cache_place(config).root is not None
    if apart:
        mesh = mesh_lib.make_local_mesh()
    readers: dict[str, FeatureEncoder | None] = {"image": None, "text": None}
    for name, side in (("image", model.image), ("text", model.text)):
        if side.frontier == "input" or is_precomputed(side.tower.spec):
            continue
        if outside := outside_tower(side, config.eval.batch):
            readers[name] = outside
            continue
        params = frozen[f"{name}_tower"]
        if apart:  # What other processes hold of the sharded tree cannot be read from here.
            own = towers[f"{name}_tower"]
            params = mesh_lib.place_frozen(own, mesh, config.mesh.shard_min_size)
        readers[name] = FrozenTower(
            tower=side.tower,
            params=params,
            mesh=mesh,
            **side.tuned.reading,
            batch=config.eval.batch,
        )
    return Readers(**readers)


def outside_tower(side: Side, batch: int) -> OutsideTower | None:
    """The tower of a side at work where another library runs it, None where JAX does.

    Args:
      side: the modality.
      batch: rows a call.
    """
    if side.tower.outside is None:
        return None
    return OutsideTower(tower=side.tower, **side.tuned.reading, batch=batch)


def training_part(config: Config, sources: Sources, readers: Readers) -> Part:
    """The training pairs, with the captions that augmentation adds."""
    return Part(
        name="training",
        pairs=sources.train,
        image=readers.image if config.cache.views else None,
        text=readers.text if config.cache.text else None,
        views=config.cache.views,
        words=config.augment.words,
        negatives=config.loss.hard > 0,
    )


def statistics_part(sources: Sources, readers: Readers) -> Part:
    """Clean training images, for the statistics of images that are encoded in the step."""
    few = sources.train
    if len(few) > _STATISTICS_IMAGES:  # Spread over the file, which may be sorted.
        chosen = np.linspace(0, len(few) - 1, _STATISTICS_IMAGES).astype(int)
        few = few.take(chosen, f"{few.spec} ({_STATISTICS_IMAGES} of them)")
    return Part(name="statistics", pairs=few, image=readers.image, text=None)


def evaluation_parts(
    config: Config, model: Model, sources: Sources, readers: Readers
) -> Iterator[Part]:
    """The evaluation sets; clean images, one view.

    They are small, and in f32 their figures are those of the model that is loaded afterwards and
    encodes for itself.
    """
    for name, pairs in sources.evals.items():
        if readers.image is None and config.data.on_error == "skip":
            pairs = leave_out_unreadable(pairs, Reading.of(config.data), name)
        yield Part(name=name, pairs=pairs, image=readers.image, text=readers.text, dtype="float32")


def unpaired_part(config: Config, sources: Sources, readers: Readers) -> UnpairedPart:
    """Images and texts without partners; images in as many views as the training pairs'."""
    return UnpairedPart(
        images=sources.images,
        texts=sources.texts,
        image=readers.image,
        text=readers.text,
        views=config.cache.views,
    )


def free_part(sources: Sources, readers: Readers) -> FreePart | None:
    """The names of the free pairs' classes, None where there are none."""
    if sources.free is None or readers.text is None:
        return None
    return FreePart(pairs=sources.free, text=readers.text)


def all_parts(
    config: Config, model: Model, sources: Sources, readers: Readers
) -> Iterator[Part | UnpairedPart | FreePart]:
    """Everything that a run has encoded beforehand."""
    yield training_part(config, sources, readers)
    yield unpaired_part(config, sources, readers)
    if (free := free_part(sources, readers)) is not None:
        yield free
    if model.standardize and not config.cache.views:
        yield statistics_part(sources, readers)
    yield from evaluation_parts(config, model, sources, readers)
