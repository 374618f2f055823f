"""ASIF: a vector is described by its similarities to the training pairs; nothing is fitted at all.

An image is compared to the training images, a text to the training texts. Place i of both
descriptions speaks of pair i, so that they can be compared with each other.
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
    """Sparse descriptions of unit length: of each row the places that are not zero.

    Attributes:
      places: anchors, integer [n, t].
      values: f32 [n, t].
      anchors: how many there are in all.
    """

    places: Integer[np.ndarray, "n t"]
    values: Float32[np.ndarray, "n t"]
    anchors: int

    def dense(self) -> Float32[np.ndarray, "n a"]:
        """The rows written out, [n, anchors]."""
        rows = np.zeros((len(self.places), self.anchors), np.float32)
        np.put_along_axis(rows, self.places, self.values, axis=1)
        return rows

    def similarities(self, other: Relative) -> Float32[np.ndarray, "n m"]:
        """Cosines of these rows with the others', in blocks of dense rows."""
        out = np.empty((len(self.places), len(other.places)), np.float32)
        for start in range(0, len(self.places), _BLOCK):
            rows = self._part(start).dense()
            for begin in range(0, len(other.places), _BLOCK):
                columns = other._part(begin).dense()
                out[start : start + _BLOCK, begin : begin + _BLOCK] = rows @ columns.T
        return out

    def _part(self, start: int) -> Relative:
        part = slice(start, start + _BLOCK)
        return dataclasses.replace(self, places=self.places[part], values=self.values[part])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asif:
    """The anchors, and how they are used.

    Attributes:
      text: unit vectors, f32 [a, d].
      image: unit vectors, f32 [a, k]; row i belongs to row i of `text`.
      text_mean: taken off a text before it is compared, f32 [d].
      image_mean: taken off an image, f32 [k].
      neighbours: the similarities of a vector that are kept, the largest.
      power: they are raised to.
    """

    text: Float32[np.ndarray, "a d"]
    image: Float32[np.ndarray, "a k"]
    text_mean: Float32[np.ndarray, " d"]
    image_mean: Float32[np.ndarray, " k"]
    neighbours: int
    power: float

    def texts(self, x: Float[np.ndarray, "n d"]) -> Relative:
        """Describes texts by the training texts."""
        return relative(unit(x - self.text_mean), self.text, self.neighbours, self.power)

    def images(self, x: Float[np.ndarray, "n k"]) -> Relative:
        """Describes images by the training images."""
        return relative(unit(x - self.image_mean), self.image, self.neighbours, self.power)


def relative(
    x: Float32[np.ndarray, "n d"],
    anchors: Float32[np.ndarray, "a d"],
    neighbours: int,
    power: float,
) -> Relative:
    """Each row's largest similarities to the anchors, to a power, at unit length.

    Needs memory for 512 rows of similarities and for what it returns. A similarity below zero
    counts as zero: an even power would make an opposite of it a likeness.

    Args:
      x: unit vectors.
      anchors: unit vectors.
      neighbours: how many are kept of each row; all where there are fewer.
      power: at least 1 in the paper.

    Raises:
      UserError: for a number of neighbours or a power that is not positive.

    References:
      Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training",
      arXiv 2210.01738, section 2.
    """
    if neighbours < 1 or power <= 0:
        raise UserError(f"neighbours is {neighbours} and power {power}; write positive numbers.")
    kept = min(neighbours, len(anchors))
    places = np.empty((len(x), kept), np.int32)
    values = np.empty((len(x), kept), np.float32)
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        places[part], values[part] = _largest(x[part] @ anchors.T, kept)
    return Relative(places=places, values=_weigh(values, power), anchors=len(anchors))


def asif(paired: Paired, neighbours: int, power: float) -> Asif:
    """The anchors of all images: one each, by the average of its views and of its captions.

    Args:
      paired: the features.
      neighbours: as for `relative`; the paper keeps 800 of 1.6 million.
      power: as for `relative`; the paper's is 8.

    Raises:
      UserError: for features that are not finite or do not fit.
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
    """`asif` with the neighbours and the power that find held-out images and texts best.

    Args:
      paired: the features.
      neighbours: the grid.
      powers: the grid.
      folds: how many to draw (images that share a text are in one), or the fold of each image.
      seed: of the draws.
      limit: images that are looked for in a fold.

    Raises:
      UserError: as for `asif`, or where there is nothing to hold out.
    """
    paired.check()
    fold = held_out.folds(paired, folds, seed)
    whole = asif(paired, 1, 1.0)
    owned = np.unique(paired.owner)
    values = np.unique(fold)
    scores = np.zeros((len(values), len(neighbours), len(powers)))
    for n, value in enumerate(values):
        out = held_out.sample(paired, fold == value, limit, seed)
        kept = fold[owned] != value
        most = min(max(neighbours), int(kept.sum()))
        texts = relative(_towards(out.text, whole.text_mean), whole.text[kept], most, 1.0)
        images = relative(_towards(out.image, whole.image_mean), whole.image[kept], most, 1.0)
        for i, count in enumerate(neighbours):
            for j, power in enumerate(powers):
                sides = (_narrow(side, count, power) for side in (images, texts))
                zimg, ztxt = sides
                scores[n, i, j] = out.score_similarities(zimg.similarities(ztxt))
    i, j = held_out.simplest(scores)
    return dataclasses.replace(whole, neighbours=int(neighbours[i]), power=float(powers[j]))


def unit(x: Float[np.ndarray, "*n d"]) -> Float32[np.ndarray, "*n d"]:
    """Vectors at unit length; a zero vector stays zero."""
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _towards(x: Float[np.ndarray, "n d"], mean: Float32[np.ndarray, " d"]) -> np.ndarray:
    return unit(x - mean)


def _anchors(paired: Paired) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Texts and images of the images that have a caption, and the means that were taken off."""
    owned, begins, counts = np.unique(paired.owner, return_index=True, return_counts=True)
    text = np.add.reduceat(paired.text.astype(np.float32)[paired.rows], begins, axis=0)
    text /= counts[:, None].astype(np.float32)
    image = np.empty((len(owned), paired.image.shape[2]), np.float32)
    for start in range(0, len(owned), 4096):
        image[start : start + 4096] = paired.images(owned[start : start + 4096]).mean(axis=1)
    means = (x.mean(axis=0, dtype=np.float64).astype(np.float32) for x in (text, image))
    text_mean, image_mean = means
    return unit(text - text_mean), unit(image - image_mean), text_mean, image_mean


def _largest(scores: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and values of the `kept` largest of each row, the largest first."""
    places = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]
    values = np.take_along_axis(scores, places, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(values, order, axis=1)


def _weigh(values: Float32[np.ndarray, "n t"], power: float) -> Float32[np.ndarray, "n t"]:
    return unit(np.maximum(values, 0) ** np.float32(power))


def _narrow(side: Relative, count: int, power: float) -> Relative:
    """The first `count` of each row, of which the values are the similarities themselves."""
    values = _weigh(side.values[:, :count], power)
    return dataclasses.replace(side, places=side.places[:, :count], values=values)


def _solved(paired: Paired, *, width: int, neighbours: int, power: float) -> Solution:
    if len(paired) > MOST_ANCHORS:
        raise UserError(
            f"config.method: 'asif' describes everything by its likeness to each training image, "
            f"{len(paired)} numbers an embedding; it goes up to {MOST_ANCHORS}: write fewer, such "
            f"as data.sample={MOST_ANCHORS}, or method='cca'"
        )
    grids: dict[str, Any] = {}
    if neighbours:
        grids["neighbours"] = [neighbours]
    if power >= 0:
        grids["powers"] = [power]
    fit = asif_cv(paired, **grids)
    heads = {
        "image_head": {"anchors": fit.image, "mean": fit.image_mean},
        "text_head": {"anchors": fit.text, "mean": fit.text_mean},
    }
    record = {"neighbours": fit.neighbours, "power": fit.power, "width": len(fit.text)}
    return Solution(record=record, heads=heads)


def _settings(record: Mapping[str, Any] | None) -> dict[str, Any]:
    record = record or {"width": 1, "neighbours": 1, "power": 1.0}
    return {
        "anchors": record["width"],
        "neighbours": record["neighbours"],
        "power": float(record["power"]),
    }


ASIF = ClosedFormSpec(
    name="asif",
    title="ASIF",
    solve=_solved,
    image=ANCHORED,
    text=ANCHORED,
    keys={"neighbours": integer(0, 0), "power": POWER},
    starts=False,
    settings=_settings,
)
