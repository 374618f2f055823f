"""Baselines without an image tower, on the same pairs: chance and raw pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from ape_jax.align import closed_form
from ape_jax.data.pairs import Pair
from ape_jax.evaluators import retrieval
from ape_jax.features.dataset import Dataset, FeatureStore
from ape_jax.images.decode import load_image
from ape_jax.terminal.progress import Progress
from ape_jax.training.run import Run

_PIXELS = 16

Metrics = dict[str, dict[str, float]]


def chance(run: Run) -> Metrics:
    """Expected metrics of a random ranking, by evaluation set."""
    return {name: found for task in run.tasks for name, found in task.chance.items()}


def pixels(run: Run, store: FeatureStore) -> Metrics:
    """Ridge from 16 x 16 pixels to mean-pooled text: what colour and rough shape alone can tell."""
    background = run.aligned.config.data.background

    def small(name: str, pairs: Sequence[Pair]) -> Float[np.ndarray, "n p"]:
        key = ("pixels", name, background, tuple(pairs[i].id for i in range(len(pairs))))
        return store.get(key, lambda: _pixels(pairs, background, name))

    data = run.dataset
    center = data.tokens.mean()[data.captions.text_index].mean(axis=0)
    means = _unit(data.tokens.mean() - center)[data.captions.text_index]
    image_index = data.captions.image_index
    fit = _fit(small("training", data.pairs)[image_index], means, image_index)

    def evaluate(name: str, test: Dataset) -> dict[str, float]:
        # Predictions shrink towards the mean; what is left of it says nothing about the image.
        zimg = _unit(fit(small(name, test.pairs)) - means.mean(axis=0))
        ztxt = _unit(test.tokens.mean() - center)[test.captions.text_index]
        return retrieval.retrieval_metrics(zimg, ztxt, test.captions.image_index)

    return {task.name: evaluate(task.name, task.dataset) for task in run.tasks}


def _fit(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n k"], image_index: Int[np.ndarray, "n"]
) -> closed_form.Ridge:
    """Cross-validated ridge, all captions of an image on one side of a fold."""
    return closed_form.ridge_cv(x, y, folds=min(5, int(image_index[-1]) + 1), groups=image_index)


def _pixels(
    pairs: Sequence[Pair], background: tuple[int, ...], name: str
) -> Float[np.ndarray, "n p"]:
    progress, rows = Progress(f"{name} pixels", len(pairs), "images"), []
    for i in range(len(pairs)):
        image = Image.fromarray(load_image(pairs[i].image, background=background))
        small = image.resize((_PIXELS, _PIXELS), Image.Resampling.BOX)
        rows.append(np.asarray(small, np.float32).ravel() / 255)
        progress.update(i + 1)
    return np.stack(rows)


def _unit(x: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    return (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)).astype(np.float32)
