"""Heads that are solved and not trained: from a run's features to the parameters of its heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ape_jax.align.closed_form import Paired, Solution, Unmatched, appended, cca_matched
from ape_jax.align.closed_form.matched import MOST
from ape_jax.align.closed_form.solution import on_both
from ape_jax.config import Config
from ape_jax.config.components import ClosedFormSpec
from ape_jax.data.languages import spoken
from ape_jax.errors import UserError
from ape_jax.features.dataset import Dataset
from ape_jax.features.unpaired import Unpaired
from ape_jax.parallel import hosts
from ape_jax.training.captions.centred import CentredRows
from ape_jax.training.captions.pooled import PooledRows
from ape_jax.training.terms.free_pairs import FreeFeatures


def solve(
    config: Config,
    dataset: Dataset,
    statistics: Mapping[str, Any],
    pooling: str,
    parts: tuple[int, ...] = (),
    unpaired: Unpaired | None = None,
    free: FreeFeatures | None = None,
) -> Solution:
    """Solves the heads on the training pairs.

    Args:
      config: a config with a closed form.
      dataset: the training pairs, both sides encoded.
      statistics: `center` and `spread` of the images, where they are standardised, and the means
        of `languages`, where captions have some.
      pooling: how the tokens of a caption become one vector, `outputs.text_pooling`.
      parts: widths of what an image's vector joins, `TowerConfig.pooled_parts`.
      unpaired: images and texts without partners, which CCA may match.
      free: free pairs, solved on as well.

    Raises:
      UserError: for pairs that the method cannot be solved on, or a width that there is not.
    """
    form, paired = config.closed_form, _paired(pooling, dataset, statistics)
    paired = dataclasses.replace(paired, parts=parts)
    if free is not None:
        paired = appended(paired, free.pooled(pooling), config.classifier.weight)
    width = _width(config, paired) if form.takes_width else 0
    settings = {key: config.closed[key] for key in form.keys}
    if config.trains and config.start.weights == "kept":
        settings["kept"] = True
    solution = form.solve(paired, width=width, **settings)
    if config.unpaired.match and unpaired is not None:
        solution = _matched(config, paired, unpaired, pooling, solution.record)
    record = {"method": form.name, **solution.record}
    if free is not None:
        record |= {"free_pairs": len(free.row_index), "free_weight": config.classifier.weight}
    solution = dataclasses.replace(solution, record=record)
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
    how["parts"] = record.get("parts", ())
    fit = cca_matched(paired, others, record["l2"], **width, **how, seed=config.seed)
    counts = {"unpaired_images": len(others.image), "unpaired_texts": len(others.text)}
    if max(counts.values()) > MOST:
        hosts.say(f"unpaired.match: up to {MOST} of a side are matched, a sample by seed")
    return on_both(fit.text, fit.image, {**record, **counts, "match": chosen.match})


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


def _paired(pooling: str, dataset: Dataset, statistics: Mapping[str, Any]) -> Paired:
    captions, weights = dataset.captions, None
    text, text_index = PooledRows(dataset.tokens, pooling), captions.text_index
    if captions.spoken is not None:
        text = CentredRows(dataset, statistics["languages"], pooling)
        text_index, weights = text.index, spoken.balanced(captions)
        weights *= len(weights) / weights.sum()
    return Paired(
        text=text,
        image=dataset.pooled,
        text_index=text_index,
        image_index=captions.image_index,
        weights=weights,
        mean=np.asarray(statistics["center"]) if "center" in statistics else None,
        std=np.asarray(statistics["spread"]) if "spread" in statistics else None,
    )
