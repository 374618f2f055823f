"""Held-out figures for a model card: with numbers of images and captions, beside chance."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
from huggingface_hub import EvalResult

from ape_jax.data.options import Reading
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.evaluators import retrieval
from ape_jax.evaluators.interval import wilson
from ape_jax.runs.aligned import AlignedModel
from ape_jax.terminal import tables

_WHAT = (
    "Recall at k (R@k) in percent: how many queries have a right answer among the first k. i2t: an "
    "image is the query and captions are searched; t2i: the other way round. Chance is what a "
    "random order would give."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of one set of held-out pairs.

    Attributes:
      name: of the set.
      found: of `retrieval_metrics`.
      images: their number, 0 where the pairs can no longer be read.
      captions: their number, likewise.
      chance: figures of a random order, {} where the numbers are not known.
    """

    name: str
    found: Mapping[str, float]
    images: int
    captions: int
    chance: Mapping[str, float]

    @property
    def counted(self) -> str:
        """How many images and captions there are, in words."""
        if not self.images:
            return "their number is not known any more"
        return f"{self.images:,} images, {self.captions:,} captions"


def read(aligned: AlignedModel) -> list[Figures]:
    """The figures in the run's summary, set by set.

    The pairs are opened to count them; of a set that is gone since, the number stays unknown.
    """
    pattern, found = re.compile(r"eval/(.+)/(\w+)"), dict[str, dict[str, float]]()
    for key, value in sorted(aligned.summary.items()):
        if (match := pattern.fullmatch(key)) and isinstance(value, int | float):
            found.setdefault(match[1], {})[match[2]] = float(value)
    return [_counted(aligned, name, figures) for name, figures in found.items()]


def section(figures: Sequence[Figures]) -> str:
    """The figures as Markdown; '' where there are none."""
    if not figures:
        return ""
    metrics = [m for m in tables.RETRIEVAL if any(m in entry.found for entry in figures)]
    rows, notes = [], []
    for entry in figures:
        rows.append([f"{entry.name} ({entry.counted})", *_cells(entry.found, metrics)])
        if entry.chance:
            rows.append(["chance", *_cells(entry.chance, metrics)])
        if entry.captions and "t2i_r10" in entry.found:
            low, high = wilson(round(entry.found["t2i_r10"] * entry.captions), entry.captions)
            notes.append(
                f"* {entry.name}: with {entry.captions:,} captions, t2i R@10 could as well be "
                f"{100 * low:.0f} or {100 * high:.0f}."
            )
    table = tables.markdown(["held-out pairs", *map(tables.metric_title, metrics)], rows)
    return "\n\n".join(["## Figures", table, _WHAT, "\n".join(notes)]).rstrip()


def results(figures: Sequence[Figures]) -> list[EvalResult]:
    """The recalls as entries of the card's `model-index`, in percent."""
    return [
        EvalResult(
            task_type="image-text-retrieval",
            task_name="Image-text retrieval",
            dataset_type=re.sub(r"[^\w.-]+", "-", entry.name),
            dataset_name=f"{entry.name} ({entry.counted})",
            metric_type=f"recall_at_{metric.rpartition('_r')[2]}",
            metric_name=tables.metric_title(metric),
            metric_value=round(100 * value, 2),
        )
        for entry in figures
        for metric, value in entry.found.items()
        if metric in tables.RETRIEVAL and "rank" not in metric
    ]


def _cells(values: Mapping[str, float], metrics: Sequence[str]) -> list[str]:
    return [tables.cell(m, values[m]) if m in values else "" for m in metrics]


def _counted(aligned: AlignedModel, name: str, found: Mapping[str, float]) -> Figures:
    try:
        data = aligned.config.data
        pairs = open_pairs(data.eval[name], key=f"data.eval.{name}", reading=Reading.of(data))
    except (KeyError, UserError):
        return Figures(name=name, found=found, images=0, captions=0, chance={})
    image_index = np.repeat(np.arange(len(pairs)), [len(pair.captions) for pair in pairs])
    return Figures(
        name=name,
        found=found,
        images=len(pairs),
        captions=len(image_index),
        chance=retrieval.chance_metrics(len(pairs), image_index),
    )
