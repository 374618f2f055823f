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
from ape_jax.align.closed_form.solution import POWER, Solution
from ape_jax.align.heads.anchored import ANCHORED
from ape_jax.config.components import ClosedFormSpec
from ape_jax.config.fields import integer
from ape_jax.errors import UserError

NEIGHBOURS = (10, 25, 50, 100, 200, 400, 800)
POWERS = (1.0, 2.0, 4.0, 8.0)
# An embedding is as wide as there are anchors: 20,000 are 80 kB a caption.
MOST_ANCHORS = 20_000
_BLOCK = 512  # Rows that are compared to all anchors at a time.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relative:
    """Sparse relative coordinates, each row of unit length.

    Attributes:
      indices: anchors with a non-zero coordinate, integer [n, t].
      values: coordinates at those anchors, f32 [n, t].
      anchors: number of anchors a, the width of a dense row.
    """

    indices: Integer[np.ndarray, "n t"]
    values: Float32[np.ndarray, "n t"]
    anchors: int

    def dense(self) -> Float32[np.ndarray, "n a"]:
        """Returns the rows as a dense array."""
        rows = np.zeros((len(self.indices), self.anchors), np.float32)
        np.put_along_axis(rows, self.indices, self.values, axis=1)
        return rows

    def similarities(self, other: Relative) -> Float32[np.ndarray, "n m"]:
        """Cosines of these rows with those of `other`, computed in dense blocks."""
        out = np.empty((len(self.indices), len(other.indices)), np.float32)
        for start in range(0, len(self.indices), _BLOCK):
            rows = self._block(start).dense()
            for begin in range(0, len(other.indices), _BLOCK):
                columns = other._block(begin).dense()
                out[start : start + _BLOCK, begin : begin + _BLOCK] = rows @ columns.T
        return out

    def _block(self, start: int) -> Relative:
        block = slice(start, start + _BLOCK)
        return dataclasses.replace(self, indices=self.indices[block], values=self.values[block])


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


def relative(
    x: Float32[np.ndarray, "n d"],
    anchors: Float32[np.ndarray, "a d"],
    neighbours: int,
    power: float,
) -> Relative:
    """Relative coordinates: the largest similarities of each row to the anchors, raised to a power.

    Rows are scaled to unit length. A similarity below zero counts as zero: an even power would make
    opposites similar. At most 512 rows of similarities are held in memory beside the result.

    Example:
      >>> x = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)
      >>> relative(x, np.eye(2, dtype=np.float32), neighbours=1, power=2.0).dense().tolist()
      [[0.0, 1.0], [1.0, 0.0]]

    Args:
      x: vectors of unit length.
      anchors: vectors of unit length.
      neighbours: number of largest similarities to keep per row; at most all are kept.
      power: exponent of the similarities, above 0; at least 1 in the paper.

    Returns:
      Coordinates of each row, the largest first.

    Raises:
      UserError: if `neighbours` or `power` is not positive.

    References:
      Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training",
      arXiv 2210.01738, section 2.
    """
    if neighbours < 1 or power <= 0:
        raise UserError(f"neighbours is {neighbours} and power {power}; write positive numbers")
    kept = min(neighbours, len(anchors))
    indices = np.empty((len(x), kept), np.int32)
    values = np.empty((len(x), kept), np.float32)
    for start in range(0, len(x), _BLOCK):
        block = slice(start, start + _BLOCK)
        indices[block], values[block] = _largest(x[block] @ anchors.T, kept)
    return Relative(indices=indices, values=_weigh(values, power), anchors=len(anchors))


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
      UserError: if features are not finite, or their shapes do not match.

    References:
      Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training",
      arXiv 2210.01738, section 2.
    """
    paired.check()
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
                sides = (_narrow(side, count, power) for side in (images, texts))
                zimg, ztxt = sides
                scores[n, i, j] = out.score_similarities(zimg.similarities(ztxt))
    i, j = held_out.simplest(scores)
    return dataclasses.replace(fit, neighbours=int(neighbours[i]), power=float(powers[j]))


def unit(x: Float[np.ndarray, "*n d"]) -> Float32[np.ndarray, "*n d"]:
    """Scales vectors to unit length; a zero vector stays zero."""
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _unit_about(x: Float[np.ndarray, "n d"], mean: Float32[np.ndarray, " d"]) -> np.ndarray:
    return unit(x - mean)


def _anchors(paired: Paired) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centred unit-length texts and images, one row per image with a caption, and both means."""
    captioned, begins, counts = np.unique(paired.image_index, return_index=True, return_counts=True)
    text = np.add.reduceat(paired.text.astype(np.float32)[paired.text_index], begins, axis=0)
    text /= counts[:, None].astype(np.float32)
    image = np.empty((len(captioned), paired.image.shape[2]), np.float32)
    for start in range(0, len(captioned), 4096):
        image[start : start + 4096] = paired.images(captioned[start : start + 4096]).mean(axis=1)
    means = (x.mean(axis=0, dtype=np.float64).astype(np.float32) for x in (text, image))
    text_mean, image_mean = means
    return unit(text - text_mean), unit(image - image_mean), text_mean, image_mean


def _largest(scores: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and values of the `kept` largest scores of each row, the largest first."""
    indices = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]
    values = np.take_along_axis(scores, indices, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(values, order, axis=1)


def _weigh(values: Float32[np.ndarray, "n t"], power: float) -> Float32[np.ndarray, "n t"]:
    return unit(np.maximum(values, 0) ** np.float32(power))


def _narrow(side: Relative, count: int, power: float) -> Relative:
    """Keeps the first `count` similarities of each row and raises them to `power`."""
    values = _weigh(side.values[:, :count], power)
    return dataclasses.replace(side, indices=side.indices[:, :count], values=values)


def _solved(paired: Paired, *, width: int, neighbours: int, power: float) -> Solution:
    if len(paired) > MOST_ANCHORS:
        raise UserError(
            f"config.method: 'asif' describes fit by its likeness to each training image, "
            f"{len(paired)} numbers an embedding; it goes up to {MOST_ANCHORS}: write fewer, such "
            f"as data.sample={MOST_ANCHORS}, or method='cca'"
        )
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
