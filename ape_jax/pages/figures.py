"""The figures of a run's held-out pairs: the headline, a card a data set, and a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ape_jax.data.pairs import Pairs
from ape_jax.evaluators import retrieval
from ape_jax.pages import html, words
from ape_jax.terminal import tables

_WHAT = (
    "R@10 (recall at 10): of 100 queries, so many have a right answer among the first 10. "
    "Median place: half of the captions have their image there or before it. Text to image: a "
    "caption is looked up among all images; image to text the other way round. Chance is what a "
    "random order would give."
)
_NONE = (
    "This run was given no held-out pairs, so nothing says how it does on what it has not seen; "
    "name some in data.eval, or write data.split=0.1, which holds a tenth of the images out."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of one data set.

    Attributes:
      name: of the set.
      images: their number.
      captions: their number.
      found: of `retrieval_metrics`.
      chance: the same, expected of a random order.
    """

    name: str
    images: int
    captions: int
    found: Mapping[str, float]
    chance: Mapping[str, float]


def read(summary: Mapping[str, Any], sets: Mapping[str, Pairs]) -> list[Figures]:
    """The figures in a run's summary; a set without them is left out.

    Args:
      summary: of the run.
      sets: its evaluation sets.
    """
    figures = []
    for name, pairs in sets.items():
        keys = {metric: f"eval/{name}/{metric}" for metric in tables.RETRIEVAL}
        if not all(key in summary for key in keys.values()):
            continue
        image_index = np.repeat(np.arange(len(pairs)), [len(pair.captions) for pair in pairs])
        figures.append(
            Figures(
                name=name,
                images=len(pairs),
                captions=len(image_index),
                found={metric: float(summary[key]) for metric, key in keys.items()},
                chance=retrieval.chance_metrics(len(pairs), image_index),
            )
        )
    return figures


def headline(figures: Sequence[Figures]) -> str:
    """The first thing to read: one sentence, and a card for each data set."""
    if not figures:
        return html.paragraph(_NONE, "lead")
    first = figures[0]
    sentence = words.headline(first.found, first.chance, first.images)
    if len(figures) > 1:
        sentence = "How captions and images of held-out pairs find each other, beside chance:"
    cards = [words.card(f.name, f.found, f.chance, f.images, f.captions) for f in figures]
    return html.paragraph(sentence, "lead") + f'<div class="cards">{"".join(cards)}</div>'


def section(figures: Sequence[Figures]) -> html.Section:
    """The table of all figures beside chance; there is at least one set."""
    rows = []
    for entry in figures:
        title = f"{entry.name} ({entry.images:,} images, {entry.captions:,} captions)"
        for name, values in ((title, entry.found), ("chance", entry.chance)):
            rows.append([name, *(tables.cell(key, values[key]) for key in tables.RETRIEVAL)])
    head = ["of 100 queries", *map(_title, tables.RETRIEVAL)]
    chance = range(1, len(rows), 2)
    body = html.table(head, rows, soft=chance) + html.paragraph(_WHAT, "soft")
    return html.Section("Figures", body)


def _title(metric: str) -> str:
    """The title of a column, without abbreviations of directions."""
    if "median" in metric:
        return "text to image, median place"
    way, _, recall = metric.partition("_r")
    return f"{'image to text' if way == 'i2t' else 'text to image'}, R@{recall}"
