"""ASIF: relative coordinates, the similarities of a vector to the training pairs; no fit.

Images are compared to the training images, texts to the training texts. Coordinate i of both stands
for training pair i, so images and texts can be compared by their coordinates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Integer

from ape_jax.align.closed_form import held_out
from ape_jax.align.closed_form.paired import Paired
from ape_jax.align.closed_form.relative import Relative, relative, unit
from ape_jax.align.closed_form.solution import POWER, Solution
from ape_jax.align.closed_form.sums import require_variance
from ape_jax.align.heads.anchored import ANCHORED
from ape_jax.config.components import ClosedFormSpec
from ape_jax.config.fields import integer
from ape_jax.errors import UserError
from ape_jax.storage import memory
from ape_jax.storage.row_array import blocks

NEIGHBOURS = (10, 25, 50, 100, 200, 400, 800)
POWERS = (1.0, 2.0, 4.0, 8.0)
# An embedding is as wide as there are anchors: 20,000 are 80 kB a caption.
MOST_ANCHORS = 20_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asif:
    """Anchors of both modalities, with the hyperparameters of relative coordinates.

    Attributes:
      text: text anchors of unit length, f32 [a, d].
      image: image anchors of unit length, f32 [a, k]; row i is paired with row i of `text`.
      text_mean: subtracted from a text before it is compared, f32 [d].
      image_mean: subtracted from an image before it is compared, f32 [k].
      neighbours: number of largest similarities that are kept of a vector.
      power: exponent of the similarities.
    """

    text: Float32[np.ndarray, "a d"]
    image: Float32[np.ndarray, "a k"]
    text_mean: Float32[np.ndarray, " d"]
    image_mean: Float32[np.ndarray, " k"]
    neighbours: int
    power: float

    def texts(self, x: Float[np.ndarray, "n d"]) -> Relative:
        """Relative coordinates of texts, from their similarities to the text anchors."""
        return relative(unit(x - self.text_mean), self.text, self.neighbours, self.power)

    def images(self, x: Float[np.ndarray, "n k"]) -> Relative:
        """Relative coordinates of images, from their similarities to the image anchors."""
        return relative(unit(x - self.image_mean), self.image, self.neighbours, self.power)


def asif(paired: Paired, neighbours: int, power: float) -> Asif:
    """Makes one anchor per image that has captions: the mean of its views and of its captions.

    Example:
      >>> from ape_jax.align.closed_form import from_rows
      >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
      >>> fit = asif(from_rows(x, 2 * x), neighbours=2, power=1.0)
      >>> fit.images(2 * x).similarities(fit.texts(x)).round(3).tolist()
      [[1.0, 0.0], [0.0, 1.0]]

    Args:
      paired: features of the training pairs.
      neighbours: number of largest similarities to keep; the paper keeps 800 of 1.6 million.
      power: exponent of the similarities, above 0; 8 in the paper.

    Returns:
      The anchors, with which images and texts get comparable coordinates.

    Raises:
      UserError: if features are not finite, or their shapes do not match, or nothing varies on a
        side.

    References:
      Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training",
      arXiv 2210.01738, section 2.
    """
    paired.check()
    paired.check_values()
    text, image, text_mean, image_mean = _anchors(paired)
    return Asif(
        text=text,
        image=image,
        text_mean=text_mean,
        image_mean=image_mean,
        neighbours=int(neighbours),
        power=float(power),
    )


def asif_cv(
    paired: Paired,
    *,
    neighbours: Sequence[int] = NEIGHBOURS,
    powers: Sequence[float] = POWERS,
    folds: int | Integer[np.ndarray, " n"] = 5,
    seed: int = 0,
    limit: int = 1000,
) -> Asif:
    """Fits `asif` with the hyperparameters that retrieve held-out images and texts best.

    Args:
      paired: features of the training pairs.
      neighbours: grid of `neighbours`.
      powers: grid of `power`.
      folds: number of folds, images that share a text in one, or the fold of each image [n].
      seed: seed of the random folds and samples.
      limit: maximum number of images to score per fold.

    Returns:
      Anchors of all pairs, with the first grid point that `held_out.simplest` accepts.

    Raises:
      UserError: as for `asif`, or if nothing can be held out.
    """
    paired.check()
    fold = held_out.folds(paired, folds, seed)
    fit = asif(paired, 1, 1.0)
    captioned = np.unique(paired.image_index)
    values = np.unique(fold)
    scores = np.zeros((len(values), len(neighbours), len(powers)))
    for n, value in enumerate(values):
        out = held_out.sample(paired, fold == value, limit, seed)
        kept = fold[captioned] != value
        most = min(max(neighbours), int(kept.sum()))
        texts = relative(_unit_about(out.text, fit.text_mean), fit.text[kept], most, 1.0)
        images = relative(_unit_about(out.image, fit.image_mean), fit.image[kept], most, 1.0)
        for i, count in enumerate(neighbours):
            for j, power in enumerate(powers):
                sides = (side.narrowed(count, power) for side in (images, texts))
                zimg, ztxt = sides
                scores[n, i, j] = out.score_similarities(zimg.similarities(ztxt))
    i, j = held_out.simplest(scores)
    return dataclasses.replace(fit, neighbours=int(neighbours[i]), power=float(powers[j]))


def _unit_about(x: Float[np.ndarray, "n d"], mean: Float32[np.ndarray, " d"]) -> np.ndarray:
    return unit(x - mean)


def _anchors(paired: Paired) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centred unit-length texts and images, one row per image with a caption, and both means."""
    captioned, begins, counts = np.unique(paired.image_index, return_index=True, return_counts=True)
    bounds = np.append(begins, len(paired.image_index))
    text, image = (
        np.empty((len(captioned), width), np.float32)
        for width in (paired.text.shape[1], paired.image.shape[2])
    )
    for block in blocks(len(captioned), 4096):
        first, last = bounds[block.start], bounds[block.stop]
        texts = paired.text[paired.text_index[first:last]].astype(np.float32)
        np.add.reduceat(texts, bounds[block] - first, axis=0, out=text[block])
        image[block] = paired.images(captioned[block]).mean(axis=1)
    text /= counts[:, None].astype(np.float32)
    means = (x.mean(axis=0, dtype=np.float64).astype(np.float32) for x in (text, image))
    text_mean, image_mean = means
    for name, side, mean in (("captions", text, text_mean), ("images", image, image_mean)):
        variance, square = (np.square(x, dtype=np.float64).mean() for x in (side - mean, side))
        require_variance(name, len(captioned), float(variance), float(square))
    return unit(text - text_mean), unit(image - image_mean), text_mean, image_mean


def _check_size(paired: Paired) -> None:
    """Checks that anchors are not too many, and fit into memory while they are made."""
    count = len(paired)
    # In f32; as they are read, without their mean, and of unit length.
    size = 3 * 4 * count * (paired.text.shape[1] + paired.image.shape[2])
    free = memory.free_bytes()
    if count > MOST_ANCHORS:
        limit = f"it goes up to {MOST_ANCHORS}"
    elif free is not None and size > free:
        limit, count = f"{free / 1e9:.3f} GB are free", max(count * free // size // 2, 2)
    else:
        return
    raise UserError(
        "config.method: 'asif' describes an input by its likeness to each training image and keeps "
        f"all {len(paired)} in memory, {size / 1e9:.3f} GB; {limit}: write fewer, such as "
        f"data.sample={min(count, MOST_ANCHORS)}, or method='cca'"
    )


def _solved(paired: Paired, *, width: int, neighbours: int, power: float) -> Solution:
    _check_size(paired)
    grids: dict[str, Any] = {"neighbours": [neighbours]} if neighbours else {}
    grids |= {"powers": [power]} if power >= 0 else {}
    fit = asif_cv(paired, **grids)
    heads = {
        "image_head": {"anchors": fit.image, "mean": fit.image_mean},
        "text_head": {"anchors": fit.text, "mean": fit.text_mean},
    }
    record = {"neighbours": fit.neighbours, "power": fit.power, "width": len(fit.text)}
    return Solution(record=record, heads=heads)


def _settings(record: Mapping[str, Any] | None) -> dict[str, Any]:
    record = record or {"width": 1, "neighbours": 1, "power": 1.0}
    sizes = {"anchors": record["width"], "neighbours": record["neighbours"]}
    return {**sizes, "power": float(record["power"])}


ASIF = ClosedFormSpec(
    name="asif",
    title="ASIF",
    solve=_solved,
    image=ANCHORED,
    text=ANCHORED,
    keys={
        "neighbours": integer(0, 0).explained(
            "Largest similarities that are kept of a vector; 0 chooses by held-out pairs."
        ),
        "power": POWER,
    },
    starts=False,
    settings=_settings,
)
