"""Heads that are solved and not trained: from a run's features to the parameters of its heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, PyTree

from ape_jax.align.closed_form import Paired, Solution, Unmatched, cca_matched
from ape_jax.align.closed_form.matched import MOST
from ape_jax.align.closed_form.solution import on_both
from ape_jax.config import Config, poolings
from ape_jax.config.components import ClosedFormSpec
from ape_jax.errors import UserError
from ape_jax.features.dataset import Dataset
from ape_jax.features.ragged import RaggedTokens
from ape_jax.features.unpaired import Unpaired
from ape_jax.parallel import hosts

_TOKENS = 2**15  # Of captions that are pooled together.


def solve(
    config: Config,
    dataset: Dataset,
    statistics: Mapping[str, Any] | None,
    pooling: str,
    unpaired: Unpaired | None = None,
) -> Solution:
    """Solves the heads on the training pairs.

    Args:
      config: a config with a closed form.
      dataset: the training pairs, both sides encoded.
      statistics: `center` and `spread` of the images, None where they are not standardised.
      pooling: how the tokens of a caption become one vector, `build.text_pooling`.
      unpaired: images and texts without partners, which CCA may match.

    Raises:
      UserError: for pairs that the method cannot be solved on, or a width that there is not.
    """
    form, paired = config.closed_form, _paired(pooling, dataset, statistics)
    width = _width(config, paired) if form.takes_width else 0
    settings = {key: config.closed[key] for key in form.keys}
    if config.trains and config.start.weights == "kept":
        settings["kept"] = True
    solution = form.solve(paired, width=width, **settings)
    if config.unpaired.match and unpaired is not None:
        solution = _matched(config, paired, unpaired, pooling, solution.record)
    solution = dataclasses.replace(solution, record={"method": form.name, **solution.record})
    if jax.process_count() == 1:
        return solution
    from jax.experimental import multihost_utils  # The same bits on every process.

    solved = dict(solution.heads), solution.weights
    heads, weights = jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(solved))
    return dataclasses.replace(solution, heads=heads, weights=weights)


def _matched(
    config: Config,
    paired: Paired,
    unpaired: Unpaired,
    pooling: str,
    record: Mapping[str, Any],
) -> Solution:
    """CCA with the hyperparameters that the pairs alone chose, solved on unpaired data as well."""
    if unpaired.images is None or unpaired.texts is None:
        raise ValueError("unpaired images are matched with unpaired texts")
    others = Unmatched(text=PooledRows(unpaired.texts, pooling), image=unpaired.images)
    chosen = config.unpaired
    how = {"weight": chosen.match, "eps": chosen.eps, "rounds": chosen.match_rounds}
    width = {"dim": record["width"], "power": record["power"]}
    how |= {name: record.get(name, 0.0) for name in ("text_l2", "noise")}
    fit = cca_matched(paired, others, record["l2"], **width, **how, seed=config.seed)
    counts = {"unpaired_images": len(others.image), "unpaired_texts": len(others.text)}
    if max(counts.values()) > MOST:
        hosts.say(f"unpaired.match: up to {MOST} of a side are matched, a sample by seed")
    return on_both(fit.text, fit.image, {**record, **counts, "match": chosen.match})


class PooledRows:
    """One f32 vector a caption, pooled from its tokens as it is read: [n, e].

    Args:
      tokens: the captions' encodings, in memory or on disk.
      pooling: a mode, or several joined by "+", as for `RaggedTokens.pool`.
    """

    def __init__(self, tokens: RaggedTokens, pooling: str):
        self._tokens, self._pooling = tokens, pooling
        width = tokens.flat.shape[1] * len(poolings.parts(pooling))
        self.shape: tuple[int, ...] = (len(tokens), width)
        self.dtype = np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all vectors."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | np.ndarray) -> Float32[np.ndarray, "b e"]:
        """The vectors of some captions."""
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else index
        out = np.empty((len(rows), self.shape[1]), np.float32)
        # Captions may be long: so many at a time that their tokens stay few.
        ends = np.cumsum(self._tokens.lengths[rows])
        start = 0
        while start < len(rows):
            before = ends[start - 1] if start else 0
            stop = max(int(np.searchsorted(ends, before + _TOKENS, side="right")), start + 1)
            out[start:stop] = self._read(rows[start:stop]).pool(self._pooling)
            start = stop
        return out

    def _read(self, rows: np.ndarray) -> RaggedTokens:
        if (np.diff(rows) != 1).any():
            return self._tokens.rows(rows)
        # Neighbours lie side by side: one long read.
        offsets = self._tokens.offsets[rows[0] : rows[-1] + 2]
        return RaggedTokens(self._tokens.flat[offsets[0] : offsets[-1]], offsets - offsets[0])


def install(trainable: PyTree, solution: Solution, form: ClosedFormSpec) -> PyTree:
    """The trainable tree with the solved parameters in the place of the initial ones."""
    part = f"part_{form.text.name}"
    heads = {name: _replace(trainable[name], tree, part) for name, tree in solution.heads.items()}
    return {**trainable, **heads}


def _replace(head: PyTree, solved: PyTree, part: str) -> PyTree:
    """Of a sum of heads, its first part is what is solved; the others start at zero."""
    if set(solved) <= set(head):
        return {**head, **solved}
    return {**head, part: {**head[part], **solved}}


def _width(config: Config, paired: Paired) -> int:
    """The joint width that is asked for, 0 to choose; training starts with all that there is.

    What a start leaves out cannot be learned again, and what it weights low does no harm.
    """
    most = min(paired.text.shape[1], paired.image.shape[2])
    if config.embed > most:
        raise UserError(
            f"config.embed: {config.closed_form.name!r} maps both sides to at most {most}, the "
            "narrower side's width; write that or less (0 lets held-out pairs choose), found "
            f"{config.embed}"
        )
    return config.embed or (most if config.trains else 0)


def _paired(pooling: str, dataset: Dataset, statistics: Mapping[str, Any] | None) -> Paired:
    return Paired(
        text=PooledRows(dataset.tokens, pooling),
        image=dataset.pooled,
        text_index=dataset.captions.text_index,
        image_index=dataset.captions.image_index,
        mean=None if statistics is None else np.asarray(statistics["center"]),
        std=None if statistics is None else np.asarray(statistics["spread"]),
    )
