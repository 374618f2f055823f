"""Frozen features for curation: which keys of a config decide them, and how they are made."""

from __future__ import annotations

import dataclasses
from typing import Any

from ape_jax import config as config_lib
from ape_jax.align.closed_form import Paired
from ape_jax.config import Config
from ape_jax.config.outside import is_precomputed
from ape_jax.curation.vectors import Vectors
from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.vectors import VectorPairs
from ape_jax.errors import UserError
from ape_jax.features import frontier
from ape_jax.features.dataset import Dataset, FeatureStore
from ape_jax.features.encode_pairs import encode_pairs
from ape_jax.features.frontier import Readers
from ape_jax.images.decode import ImageRef
from ape_jax.runs import build
from ape_jax.runs.outputs import text_pooling
from ape_jax.training import layers, run
from ape_jax.training.captions.pooled import PooledRows
from ape_jax.training.input import opened

# What decides which vectors the towers give. How they are tuned, and what is trained, does not.
_READ = ("tower", "layer", "dtype", "param_dtype", "trust_remote_code", "torch_device", "pooling")
_KEYS = (
    "seed",
    *(f"image.{name}" for name in (*_READ, "size")),
    *(f"text.{name}" for name in (*_READ, "max_length", "prefix")),
    *(f"data.{name}" for name in ("on_error", "max_skipped", "columns", "background", "workers")),
    *(f"cache.{name}" for name in ("dtype", "dir", "missing")),
    "eval.batch",
    "mesh.fsdp",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Towers:
    """Both frozen towers, ready to encode.

    Attributes:
      config: what they are read by.
      readers: the towers.
      pooling: how the tokens of a caption become one vector.
    """

    config: Config
    readers: Readers
    pooling: str

    def encode(
        self, pairs: Pairs, name: str, *, images: bool = True, texts: bool = True
    ) -> Dataset:
        """Features of pairs, clean images in one view: from the cache, or encoded into it.

        Args:
          pairs: the pairs.
          name: for progress lines.
          images: whether images are encoded.
          texts: whether captions are.
        """
        image = self.readers.image if images else None
        text = self.readers.text if texts else None
        return encode_pairs(pairs, image, text, self.config, FeatureStore(), name=name)

    def vectors(self, dataset: Dataset) -> Vectors:
        """The vectors of a pool that both towers have encoded."""
        assert dataset.tokens is not None and dataset.pooled is not None
        captions = dataset.captions
        return Vectors.of(
            Paired(
                text=PooledRows(dataset.tokens, self.pooling),
                image=dataset.pooled,
                text_index=captions.text_index,
                image_index=captions.image_index,
            )
        )


def reading_config(config: Config, pairs: str) -> Config:
    """The keys of a config that decide features, with everything else as it is by default.

    Args:
      config: a resolved config.
      pairs: the pool.

    Raises:
      UserError: for a tower that is a placeholder for vectors.
    """
    for side in ("image", "text"):
        if is_precomputed(spec := config.side(side).tower):
            raise UserError(
                f"config.{side}.tower: {spec!r} stands for vectors, and curation writes a file of "
                "images and captions; name a tower"
            )
    flat = config_lib.flatten(config)
    kept: dict[str, Any] = {key: flat[key] for key in _KEYS if key in flat}
    if kept["image.pooling"] == "none":  # For a head that pools; here nothing is trained.
        kept["image.pooling"] = "own"
    made = {**config_lib.flatten(Config()), **kept, "data.pairs": pairs, "method": "cca"}
    return config_lib.resolve(made)


def open_pool(config: Config) -> tuple[Config, Pairs]:
    """Opens the pool and settles what the config leaves to it.

    Raises:
      UserError: for pairs that cannot be read, or are vectors.
    """
    config, sources = opened.settled(config)
    if isinstance(sources.train, VectorPairs):
        raise UserError(f"--pairs: {config.data.pairs!r} holds vectors and no images; name images")
    config, _ = layers.settled(config, sources.train)
    return config, sources.train


def load(config: Config) -> Towers:
    """Loads both towers.

    Raises:
      UserError: for a tower that cannot be loaded, or a layer or pooling that it does not have.
    """
    towers = build.load_towers(config)
    made = run.assemble(config, towers)
    readers = frontier.make_readers(config, made.model, made.frozen, made.mesh, towers.params)
    pooling = text_pooling.pooling(config, made.model.text.tower)
    return Towers(config=config, readers=readers, pooling=pooling)


def of_texts(texts: tuple[str, ...], spec: str) -> Pairs:
    """Texts without images, as pairs whose images are never read."""
    return Pairs.of(
        (Pair(ImageRef("", text), (text,), str(i)) for i, text in enumerate(texts)), spec
    )
