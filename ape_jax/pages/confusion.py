"""Confusion matrix of a zero-shot classifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Integer

from ape_jax.data.labelled import Labelled
from ape_jax.evaluators import tasks, zeroshot
from ape_jax.pages import html

_WHOLE = 24  # Classes up to which the matrix is shown; of more, what is confused most often.
_PAIRS = 20


def confusion(
    labels: Integer[np.ndarray, " n"], predicted: Integer[np.ndarray, " n"], classes: int
) -> Int[np.ndarray, "C C"]:
    """Counts images by class (rows) and predicted class (columns).

    Args:
      labels: the class of each image, integer [n].
      predicted: the class that was found, integer [n].
      classes: their number C.

    Returns:
      int64 [C, C].
    """
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def section(encoder: tasks.Encoder, labelled: Labelled, templates: Sequence[str]) -> html.Section:
    """Top-1 and top-5, and the confusion matrix or, of many classes, its largest entries.

    Raises:
      UserError: for an image that cannot be read.
    """
    names = labelled.classnames
    zimg, classes, labels = tasks.embed_labelled(encoder, labelled, templates)
    metrics = zeroshot.zeroshot_metrics(zimg, classes, labels)
    counts = confusion(labels, (zimg @ classes.T).argmax(axis=1), len(names))
    words = html.paragraph(
        f"{labelled.spec}: {len(labelled)} images of {len(names)} classes, top-1 "
        f"{100 * metrics['top1']:.1f} %, top-5 {100 * metrics['top5']:.1f} % (chance "
        f"{100 / len(names):.1f} % and {100 * min(1, 5 / len(names)):.1f} %)."
    )
    body = _matrix(counts, names) if len(names) <= _WHOLE else _most_confused(counts, names)
    return html.Section("Zero-shot", words + body)


def _matrix(counts: np.ndarray, names: Sequence[str]) -> str:
    rows = [[name, *map(str, row)] for name, row in zip(names, counts)]
    return html.table(["is, and was taken for", *names], rows, "matrix")


def _most_confused(counts: np.ndarray, names: Sequence[str]) -> str:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    rows = [
        [names[i], names[j], str(wrong[i, j])]
        for i, j in zip(*np.unravel_index(order, wrong.shape))
        if wrong[i, j]
    ]
    return html.table(["is", "was taken for", "images"], rows)
