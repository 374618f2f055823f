"""Heads that are solved and not trained: from a run's features to the parameters of its heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PyTree

from ape_jax.align import closed_form
from ape_jax.align.closed_form import Affine, Paired
from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.features.dataset import Dataset

# An embedding is as wide as there are anchors: 20,000 are 80 kB a caption.
MOST_ANCHORS = 20_000
_BLOCK = 4096  # Images whose features are converted to f32 together.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solution:
    """Solved heads.

    Attributes:
      record: JSON: what was chosen, and what the heads must be made with (`build.make_model`).
      heads: parameters f32, `image_head` and `text_head`; a head without any is not there.
    """

    record: Mapping[str, Any]
    heads: Mapping[str, PyTree]


def method(config: Config) -> str:
    """The closed form that the heads are solved by, or start from; '' for none."""
    if config.method != "train":
        return config.method
    return "" if config.start.method == "none" else config.start.method


def solve(config: Config, dataset: Dataset, statistics: Mapping[str, Any] | None) -> Solution:
    """Solves the heads on the training pairs.

    Args:
      config: a config with a closed form.
      dataset: the training pairs, both sides encoded.
      statistics: `center` and `spread` of the images, None where they are not standardised.

    Raises:
      UserError: for pairs that the method cannot be solved on, or a width that there is not.
    """
    solver = {
        "ridge": _ridge,
        "ridge_text": _ridge_text,
        "cca": _cca,
        "procrustes": _procrustes,
        "asif": _asif,
    }
    solution = solver[method(config)](config, _paired(config, dataset, statistics))
    if jax.process_count() == 1:
        return solution
    from jax.experimental import multihost_utils  # The same bits on every process.

    heads = jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(dict(solution.heads)))
    return dataclasses.replace(solution, heads=heads)


def install(trainable: PyTree, solution: Solution) -> PyTree:
    """The trainable tree with the solved parameters in the place of the initial ones."""
    heads = {name: _replace(trainable[name], tree) for name, tree in solution.heads.items()}
    return {**trainable, **heads}


def _replace(head: PyTree, solved: PyTree) -> PyTree:
    """Of a sum of heads, its first part is what is solved; the others start at zero."""
    if set(solved) <= set(head):
        return {**head, **solved}
    return {**head, "part_linear": {**head["part_linear"], **solved}}


def _ridge(config: Config, paired: Paired) -> Solution:
    """From texts to directions of images: the squared loss then speaks of the cosine.

    With a squared loss the average over an image's views says as much as one target a view.
    """
    targets = np.empty((len(paired), 1, paired.image.shape[2]), np.float32)
    for start in range(0, len(paired), _BLOCK):
        chosen = np.arange(start, min(start + _BLOCK, len(paired)))
        views = paired.images(chosen).astype(np.float32)
        length = np.maximum(np.linalg.norm(views, axis=-1, keepdims=True), 1e-12)
        targets[chosen, 0] = (views / length).mean(axis=1)
    targets = dataclasses.replace(paired, image=targets, center=None, spread=None)
    fit = closed_form.ridge_pairs(targets, l2=config.closed.l2 or None)
    record = {"method": "ridge", "l2": fit.l2, "width": len(fit.bias)}
    return Solution(record=record, heads={"text_head": _linear(fit)})


def _ridge_text(config: Config, paired: Paired) -> Solution:
    """From images to texts, both about their means: no direction that texts lack counts."""
    fit = closed_form.ridge_pairs(paired, l2=config.closed.l2 or None, towards="text")
    # The fit maps the mean image to the mean text, which both sides then leave out.
    mean = closed_form.moments(paired).text_mean
    image = Affine(kernel=fit.kernel, bias=fit.bias - mean)
    text = Affine(kernel=np.eye(len(mean)), bias=-mean)
    return _both(text, image, {"method": "ridge_text", "l2": fit.l2, "width": len(mean)})


def _cca(config: Config, paired: Paired) -> Solution:
    grids: dict[str, Any] = {}
    width = _width(config, paired)
    if width:
        grids["dims"] = [width]
    if config.closed.l2:
        grids["l2s"] = [config.closed.l2]
    if config.closed.power >= 0:
        grids["powers"] = [config.closed.power]
    fit = (
        closed_form.cca(paired, config.closed.l2, dim=width, power=config.closed.power)
        if len(grids) == 3
        else closed_form.cca_cv(paired, **grids)
    )
    best = [round(float(value), 4) for value in fit.correlations[:3]]
    record = {"l2": fit.l2, "power": fit.power, "width": fit.dim, "correlations": best}
    return _both(fit.text, fit.image, {"method": "cca", **record})


def _procrustes(config: Config, paired: Paired) -> Solution:
    width = _width(config, paired)
    fit = closed_form.procrustes(paired, dim=width) if width else closed_form.procrustes_cv(paired)
    return _both(fit.text, fit.image, {"method": "procrustes", "width": fit.dim})


def _asif(config: Config, paired: Paired) -> Solution:
    if len(paired) > MOST_ANCHORS:
        raise UserError(
            f"config.method: 'asif' describes everything by its likeness to each training image, "
            f"{len(paired)} numbers an embedding; it goes up to {MOST_ANCHORS}: write fewer, such "
            f"as data.sample={MOST_ANCHORS}, or method='cca'"
        )
    grids: dict[str, Any] = {}
    if config.closed.neighbours:
        grids["neighbours"] = [config.closed.neighbours]
    if config.closed.power >= 0:
        grids["powers"] = [config.closed.power]
    fit = closed_form.asif_cv(paired, **grids)
    heads = {
        "image_head": {"anchors": fit.image, "mean": fit.image_mean},
        "text_head": {"anchors": fit.text, "mean": fit.text_mean},
    }
    chosen = {"neighbours": fit.neighbours, "power": fit.power, "width": len(fit.text)}
    return Solution(record={"method": "asif", **chosen}, heads=heads)


def _both(text: Affine, image: Affine, record: Mapping[str, Any]) -> Solution:
    return Solution(record=record, heads={"text_head": _linear(text), "image_head": _linear(image)})


def _linear(fit: Affine) -> PyTree:
    """A map as a linear head, as long as an initialised one: cosines do not see the factor.

    An optimizer does: a kernel of another size would learn at another rate.
    """
    factor = 1 / np.sqrt(len(fit.kernel) * np.mean(fit.kernel**2) or 1.0)
    arrays = {"kernel": fit.kernel * factor, "bias": fit.bias * factor}
    return {"projection": {name: value.astype(np.float32) for name, value in arrays.items()}}


def _width(config: Config, paired: Paired) -> int:
    """The joint width that is asked for, 0 to choose; training starts with all that there is.

    What a start leaves out cannot be learned again, and what it weights low does no harm.
    """
    most = min(paired.text.shape[1], paired.image.shape[2])
    if config.embed > most:
        raise UserError(
            f"config.embed: {method(config)!r} maps both sides to at most {most}, the narrower "
            f"side's width; write that or less (0 lets held-out pairs choose), found {config.embed}"
        )
    return config.embed or (most if config.method == "train" else 0)


def _paired(config: Config, dataset: Dataset, statistics: Mapping[str, Any] | None) -> Paired:
    return Paired(
        text=_pooled(dataset, config.text.pooling),
        image=dataset.pooled,
        rows=dataset.captions.rows,
        owner=dataset.captions.owner,
        center=None if statistics is None else np.asarray(statistics["center"]),
        spread=None if statistics is None else np.asarray(statistics["spread"]),
    )


def _pooled(dataset: Dataset, pooling: str) -> Float[np.ndarray, "m d"]:
    """One vector a distinct caption, as the heads pool."""
    tokens = dataset.tokens
    if pooling == "mean":
        return tokens.mean()
    places = tokens.offsets[:-1] if pooling == "cls" else tokens.offsets[1:] - 1
    return tokens.flat[places].astype(np.float32)
