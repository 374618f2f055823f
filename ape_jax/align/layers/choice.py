"""Chooses the layers and poolings of two towers by a sample of pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.align.closed_form.paired import Paired
from ape_jax.align.layers import readings, retrieval
from ape_jax.align.layers.halves import Memory
from ape_jax.align.layers.neighbours import Calibrated, calibrated, nearest, rice_k
from ape_jax.align.layers.readings import LayerVectors, Reading
from ape_jax.align.layers.retrieval import Scores

Overlaps = dict[tuple[Reading, Reading], Calibrated]
"""Of a reading of images and one of texts."""

LEAST_CONCEPTS = 64
"""Fewer are not retrieved among: neighbourhoods alone decide."""
LEAST_GAIN = 0.02
"""Share of the score that a more complex reading must gain."""
_TRIED = 3  # The best single layers, with which other poolings are tried.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One tower: its vectors, and what there is to choose.

    Attributes:
      vectors: of all its layers.
      layers: those that are read; None where they are to be chosen.
      poolings: the one that is taken, or those to choose from, the usual one first.
    """

    vectors: LayerVectors
    layers: tuple[int, ...] | None
    poolings: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Blocks of the tower."""
        return len(self.vectors.layers) - 1

    @property
    def is_open(self) -> bool:
        """Whether there is anything to choose."""
        return self.layers is None or len(self.poolings) > 1

    @property
    def usual(self) -> Reading:
        """What is read where nothing is chosen."""
        return Reading(self.layers or (-1,), self.poolings[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """A sample of pairs, with the vectors of all layers of both towers.

    Attributes:
      image: the image side, a vector an image.
      text: the text side, a vector a distinct text.
      text_index: the text of each pair, integer [p].
      image_index: the image of each pair, integer [p], ascending.
      domain: of each image, integer [n]; None for one and the same.
      block_diagonal: whether CCA takes no covariance between what an image's vector joins.
    """

    image: Side
    text: Side
    text_index: Integer[np.ndarray, " p"]
    image_index: Integer[np.ndarray, " p"]
    domain: Integer[np.ndarray, " n"] | None = None
    block_diagonal: bool = False

    def paired(self, image: Reading, text: Reading) -> Paired:
        """The pairs as two readings give them, images standardised."""
        vectors = self.image.vectors.read(image)
        return Paired(
            text=self.text.vectors.read(text),
            image=vectors[:, None],
            text_index=self.text_index,
            image_index=self.image_index,
            mean=vectors.mean(axis=0, dtype=np.float64),
            std=np.maximum(vectors.std(axis=0, dtype=np.float64), 1e-6),
            parts=self.image.vectors.parts(image) if self.block_diagonal else (),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """What is read of both towers, and the scores that it was chosen by.

    Attributes:
      image, text: the readings.
      by: "retrieval" or "neighbours".
      overlaps: of each single layer of images (rows) with each of texts, calibrated.
      scores: of each reading that was tried, by "image" and "text"; {} by neighbours alone.
      images, concepts: how many there were.
    """

    image: Reading
    text: Reading
    by: str
    overlaps: Overlaps
    scores: dict[str, dict[Reading, Scores]]
    images: int
    concepts: int

    def record(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {
            "image": _listed(self.image),
            "text": _listed(self.text),
            "by": self.by,
            "images": self.images,
            "concepts": self.concepts,
            "neighbours": [
                {
                    "image": list(i.layers),
                    "text": list(t.layers),
                    "overlap": _short(c.overlap),
                    "null": _short(c.null),
                }
                | {"spread": _short(c.spread), "score": _short(c.score)}
                for (i, t), c in self.overlaps.items()
            ],
            "retrieval": {side: _table(found) for side, found in self.scores.items()},
        }


def choose(question: Question, *, seed: int = 0, say: Callable[[str], None] = print) -> Choice:
    """Chooses what is open on both sides.

    The overlap of neighbourhoods is taken of every pair of single layers. Where there are concepts
    enough, readings are then compared by the retrieval of held-out pairs after CCA: of the image
    side against the usual text reading, then of the text side against the image reading that was
    chosen. Of what is within one standard error of the best the simplest is taken.

    Args:
      question: the sample.
      seed: of folds and permutations.
      say: takes a line on what is done.

    Raises:
      UserError: for pairs of a single concept.
    """
    usual = question.paired(question.image.usual, question.text.usual)
    concepts = len(np.unique(usual.groups()))
    overlaps = _overlaps(question, seed)
    counts = {"images": len(usual), "concepts": concepts, "overlaps": overlaps}
    image, text = question.image.usual, question.text.usual
    if concepts < LEAST_CONCEPTS:
        image, text = _by_neighbours(question, overlaps)
        return Choice(image=image, text=text, by="neighbours", scores={}, **counts)
    splits = retrieval.concept_splits(usual, question.domain, seed=seed)
    scores: dict[str, dict[Reading, Scores]] = {}
    memory = Memory()

    def score(image: Reading, text: Reading) -> Scores:
        keys, pairs = (("text", text), ("image", image)), question.paired(image, text)
        return retrieval.held_out_cca(pairs, splits, seed=seed, memory=memory, keys=keys)

    if question.image.is_open:
        say(f"choosing what is read of the image tower, by {len(usual):,} images")
        scores["image"] = _tried(question.image, lambda reading: score(reading, text))
        image = simplest(scores["image"])
    if question.text.is_open:
        say(f"choosing what is read of the text tower, by {len(usual.text):,} captions")
        scores["text"] = _tried(question.text, lambda reading: score(image, reading))
        text = simplest(scores["text"])
    return Choice(image=image, text=text, by="retrieval", scores=scores, **counts)


def simplest(scores: dict[Reading, Scores]) -> Reading:
    """The simplest reading within one standard error of the best, or within a fiftieth of it.

    A split's scores (`Scores.both`) are taken relative to their mean, so that splits count alike.
    One layer is simpler than several, and of several the best are taken; of single layers one
    pooling comes before two joined, and the output before others.

    References:
      As `closed_form.held_out.simplest`.
    """
    mean = {reading: float(found.both.mean()) for reading, found in scores.items()}
    single = sorted((x for x in scores if len(x.layers) == 1), key=_complexity)
    joined = sorted((x for x in scores if len(x.layers) > 1), key=lambda x: (-mean[x], x))
    order = [*single, *joined]
    table = np.stack([scores[reading].both for reading in order], axis=1)
    relative = table / np.maximum(table.mean(axis=1, keepdims=True), 1e-12)
    best = int(np.argmax(relative.mean(axis=0)))
    short = relative[:, best, None] - relative
    error = short.std(axis=0, ddof=1) / np.sqrt(len(short))
    return order[int(np.argmax(short.mean(axis=0) <= np.maximum(error, LEAST_GAIN)))]


def _complexity(reading: Reading) -> tuple[int, int, bool, tuple[int, ...], str]:
    parts, layers = len(reading.pooling.split("+")), reading.layers
    return len(layers), parts, layers != (-1,), tuple(-k for k in layers), reading.pooling


def _tried(side: Side, score: Callable[[Reading], Scores]) -> dict[Reading, Scores]:
    """Scores of single layers, of other poolings of the best of them, and of joined layers."""
    found: dict[Reading, Scores] = {}

    def mean(reading: Reading) -> float:
        if reading not in found:
            found[reading] = score(reading)
        return float(found[reading].both.mean())

    usual, more = side.poolings[0], side.poolings[1:]
    layers = readings.singles(side.depth) if side.layers is None else [side.layers]
    of_layer = {x: mean(Reading(x, usual)) for x in layers}
    best = sorted(of_layer, key=lambda x: -of_layer[x])[:_TRIED]
    of_pooling = {p: np.mean([mean(Reading(x, p)) for x in best]) for p in (usual, *more)}
    if side.layers is None:
        pooling = max(of_pooling, key=lambda p: of_pooling[p])
        by_layer = {x[0]: max(mean(r) for r in list(found) if r.layers == x) for x in layers}
        joined = [*readings.joins(side.depth), readings.spaced_best(by_layer, side.depth)]
        for x in joined:
            mean(Reading(x, pooling))
    return found


def _overlaps(question: Question, seed: int) -> Overlaps:
    """Calibrated overlaps of all single layers, of the usual poolings."""
    k = rice_k(len(question.image.vectors.rows))
    near: list[dict[Reading, Integer[np.ndarray, "n k"]]] = [{}, {}]
    for found, side in zip(near, (question.image, question.text)):
        for reading in side.vectors.singles(side.poolings[0]):
            vectors = side.vectors.read(reading)
            if side is question.text:
                vectors = _of_images(vectors, question)
            found[reading] = nearest(vectors, k)
    return {
        (image, text): calibrated(a, b, seed=seed)
        for image, a in near[0].items()
        for text, b in near[1].items()
    }


def _of_images(text: Float[np.ndarray, "m d"], question: Question) -> Float[np.ndarray, "n d"]:
    """The mean direction of each image's captions."""
    unit = text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-12)
    total = np.zeros((len(question.image.vectors.rows), text.shape[1]), np.float32)
    np.add.at(total, question.image_index, unit[question.text_index])
    return total


def _by_neighbours(question: Question, overlaps: Overlaps) -> tuple[Reading, Reading]:
    """The pair of single layers with the best calibrated overlap; the usual poolings."""
    sides = question.image, question.text

    def fits(pair: tuple[Reading, Reading]) -> bool:
        return all(side.layers in (None, x.layers) for side, x in zip(sides, pair))

    found = [pair for pair in overlaps if fits(pair)]
    if not found:  # Of joined layers that are given there is no overlap.
        return question.image.usual, question.text.usual
    return max(found, key=lambda pair: overlaps[pair].score)


def _listed(reading: Reading) -> dict[str, Any]:
    return {"layer": list(reading.layers), "pooling": reading.pooling}


def _table(found: dict[Reading, Scores]) -> list[dict[str, Any]]:
    rows = []
    for reading in sorted(found, key=_complexity):
        scores = found[reading]
        row = {**_listed(reading), **_means(scores, ~scores.crosses)}
        if scores.crosses.any():
            crossing = _means(scores, scores.crosses)
            row |= {f"{name}_other_domain": value for name, value in crossing.items()}
        rows.append(row)
    return rows


def _means(scores: Scores, chosen: np.ndarray) -> dict[str, float]:
    return {
        "mrr": _short(scores.mrr[chosen].mean()),
        "recall_at_10": _short(scores.recall[chosen].mean()),
    }


def _short(value: Any) -> float:
    return round(float(value), 5)
