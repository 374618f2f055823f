"""One pass over a sample of the training pairs: vectors of all layers of both towers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, PyTree

from ape_jax.align.layers import LayerVectors, Question, Reading
from ape_jax.align.layers.choice import Side
from ape_jax.align.layers.readings import poolings_of
from ape_jax.config import Config, poolings
from ape_jax.config.fields import BY_DATA
from ape_jax.config.poolings import OWN
from ape_jax.data.options import BY_SOURCE
from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.vectors import VectorTable
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.features.encode import FrozenTower
from ape_jax.features.encode_pairs import cache_place, encode_pairs
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs import build
from ape_jax.runs.outputs import layers, text_pooling
from ape_jax.storage.row_array import RowArray
from ape_jax.towers.layers.layered import layered
from ape_jax.towers.pooling import OWN as TRAINED
from ape_jax.towers.tower import Kind, Tower, check_pooling

SAMPLE = 5000
"""Training pairs that are looked at, at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """What is read of one tower in the pass.

    Attributes:
      tower: the tower as it is read.
      layer: likewise.
      modes: poolings that are computed, joined by "+".
      layers: those that are read at last; None where they are to be chosen.
      poolings: likewise, one or several to choose from.
      only: the one reading, where there is nothing to choose.
    """

    tower: Tower
    modes: str
    layers: tuple[int, ...] | None
    poolings: tuple[str, ...]
    layer: int = -1
    only: Reading | None = None

    def side(self, rows: RowArray) -> Side:
        """The side with its vectors."""
        config = self.tower.config
        if self.only is not None:
            vectors = LayerVectors(rows=rows, only=self.only)
        else:
            single = dataclasses.replace(config, joined=())
            widths = {mode: single.pooled_width(mode) for mode in self.modes.split("+")}
            vectors = LayerVectors(rows=rows, layers=config.joined, widths=widths)
        return Side(vectors=vectors, layers=self.layers, poolings=self.poolings)


def ask(config: Config, train: Pairs, store: FeatureStore) -> Question:
    """Encodes a sample of the training pairs, cached as all features are.

    Args:
      config: a resolved config that leaves layers or poolings open.
      train: its training pairs.
      store: features that this process has already.

    Raises:
      UserError: for a layer or pooling that a tower does not have, or one that cannot be chosen.
    """
    towers = build.load_towers(config)
    image, text = _asked(config, towers.image), _asked(config, towers.text)
    # Of the captions' encodings a head would want more than vectors.
    plain = config.replace({"text.head.name": "linear"})
    dataset = encode_pairs(
        sampled(config, train),
        _at_work(config, image, towers.params["image_tower"]),
        _at_work(config, text, towers.params["text_tower"]),
        plain,
        store,
        name="all layers of",
    )
    assert dataset.pooled is not None and dataset.tokens is not None
    return Question(
        image=image.side(_First(dataset.pooled)),
        text=text.side(dataset.tokens.flat),
        text_index=dataset.captions.text_index,
        image_index=dataset.captions.image_index,
        domain=domains_of(config, dataset.pairs),
        block_diagonal=config.closed["block_diagonal"],
    )


def sampled(config: Config, train: Pairs) -> Pairs:
    """At most `SAMPLE` of the pairs that are trained on, in their order."""
    used = config.data.sample or len(train)
    if used >= len(train) and len(train) <= SAMPLE:
        return train
    # As `Dataset.sample` takes them.
    order = np.random.default_rng([config.seed, len(train)]).permutation(len(train))
    return train.take(np.sort(order[: min(used, SAMPLE)]))


def domains_of(config: Config, pairs: Sequence[Pair]) -> Int[np.ndarray, " n"] | None:
    """The number of the domain of each pair, by `data.domain`; None where all are of one.

    Args:
      config: the config, for `data.domain`.
      pairs: the pairs.

    Raises:
      UserError: for pairs of a single domain, or whose domains are not known.
    """
    if not config.data.domain:
        return None
    assert isinstance(pairs, Pairs)
    if isinstance(pairs.table, VectorTable):
        raise UserError(
            "config.data.domain: precomputed vectors do not say which file they are from, and have "
            "no other columns; leave it out"
        )
    by_source = config.data.domain == BY_SOURCE
    blocks = pairs.table.column("file" if by_source else "domain", pairs.rows)
    names, found = np.unique([x for b in blocks for x in b.to_pylist()], return_inverse=True)
    if len(names) < 2:
        raise UserError(_one_domain(config, by_source, names.tolist()))
    return found.astype(np.int64)


def domain_digest(config: Config, pairs: Pairs) -> str:
    """Sha256 of the domains that a column names; "" where none does, as `Pairs.digest` has all."""
    if config.data.domain in ("", BY_SOURCE) or isinstance(pairs.table, VectorTable):
        return ""
    found = hashlib.sha256()
    for block in pairs.table.column("domain", pairs.rows):
        found.update(json.dumps(block.to_pylist()).encode())
    return found.hexdigest()


def _one_domain(config: Config, by_source: bool, names: list[Any]) -> str:
    if by_source:
        return (
            f"config.data.domain: 'source' tells files apart, and {config.data.pairs!r} is one; "
            "write several, as in 'a.jsonl::b.jsonl', the name of a column, or leave it out"
        )
    return (
        f"config.data.domain: the column {config.data.domain!r} of {config.data.pairs!r} holds "
        f"{names[0]!r} alone; folds leave out one of two or more: name another, or leave it out"
    )


def _asked(config: Config, tower: Tower) -> _Asked:
    kind: Kind = tower.kind
    side = config.side(kind)
    found = side.layer if isinstance(side.layer, tuple) else (side.layer,)
    given = tuple(layer for layer in found if isinstance(layer, int))
    by_layer, by_pooling = side.layer == BY_DATA, side["pooling"] == BY_DATA
    offered = _offered(tower) if by_pooling else (_pooling(config, tower),)
    if not (by_layer or by_pooling):
        at, layer = layers.chosen(_decided(config), kind, tower)
        only = Reading(given, offered[0])
        read = {"layer": layer, "layers": only.layers, "only": only}
        return _Asked(tower=at, modes=offered[0], poolings=offered, **read)
    if bad := [pooling for pooling in offered if not poolings.parts(pooling)]:
        raise UserError(
            f"config.{kind}.pooling: {bad[0]!r} belongs to the output of {tower.spec!r}, and "
            f"'auto' compares all layers; write {kind}.pooling='auto' or 'mean'"
        )
    try:
        every = layered(tower)
    except UserError as error:
        raise UserError(f"config.{kind}.layer: 'auto' is of a tower with layers: {error}") from None
    modes = {mode for pooling in offered for mode in poolings.parts(pooling)}
    read_modes = "+".join(mode for mode in poolings.MODES if mode in modes)
    try:
        check_pooling(read_modes, tower.config)
    except UserError as error:
        raise UserError(f"config.{kind}.pooling: {error}") from error
    fixed = None
    if not by_layer:
        at, _ = layers.chosen(_decided(config), kind, tower)  # That it has them.
        fixed = at.config.joined or tuple(_as_joined(tower, int(x)) for x in given)
    return _Asked(tower=every, modes=read_modes, layers=fixed, poolings=offered)


def _as_joined(tower: Tower, layer: int) -> int:
    """A layer as `layered` names it: the stream under the last norm counts as the output."""
    return -1 if layer >= tower.config.depth else layer


def _decided(config: Config) -> Config:
    """The config with plain values where a choice is open, for what looks at the others."""
    flat = {f"{s}.{name}": config.side(s)[name] for s in ("image", "text") for name in _PLAIN}
    return config.replace(
        {key: _PLAIN[key.split(".")[1]] for key, value in flat.items() if value == BY_DATA}
    )


_PLAIN = {"layer": -1, "pooling": "mean"}


def _pooling(config: Config, tower: Tower) -> str:
    """The pooling of the config, where it is not to be chosen."""
    own: str = tower.config.pooling
    if tower.kind == "image":
        return own if config.image.pooling == OWN else config.image.pooling
    output = text_pooling.output(config, tower)
    return output if output in TRAINED else text_pooling.pooling(config, tower)


def _offered(tower: Tower) -> tuple[str, ...]:
    """The poolings to choose from, the tower's own first where it is one of them."""
    own: str = tower.config.pooling
    if tower.kind == "image":
        modes = ["cls", "mean"] if tower.config.prefix_tokens else ["mean"]
    else:
        modes = ["last", "mean"] if own == "last" else ["mean", "cls"]
    found = poolings_of(modes)
    return tuple(sorted(found, key=lambda pooling: pooling != own))


def _at_work(config: Config, asked: _Asked, params: PyTree) -> FrozenTower:
    """The tower ready to encode, as `frontier.make_readers` places it."""
    mesh = mesh_lib.make_mesh(fsdp=config.mesh.fsdp)
    if jax.process_count() > 1 and cache_place(config).root is not None:
        mesh = mesh_lib.make_local_mesh()
    return FrozenTower(
        tower=asked.tower,
        params=mesh_lib.place_frozen(params, mesh, config.mesh.shard_min_size),
        mesh=mesh,
        layer=asked.layer,
        pooling=asked.modes,
        batch=config.eval.batch,
    )


class _First:
    """The first view of each image: rows [n, d] of [n, V, d].

    Args:
      rows: the features.
    """

    def __init__(self, rows: RowArray):
        self._rows = rows
        self.shape: tuple[int, ...] = (len(rows), *rows.shape[2:])
        self.dtype, self.nbytes = rows.dtype, rows.nbytes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """The first views of some images."""
        return self._rows[index][:, 0]
