"""`report.html` of a work directory: what was trained, how well it does, and what it finds."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ape_jax import config as config_lib
from ape_jax.align.tuning import selection
from ape_jax.config import Config
from ape_jax.data.labelled import Labelled
from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.data.vectors import VectorPairs
from ape_jax.evaluators import retrieval
from ape_jax.pages import charts, confusion, gallery, html
from ape_jax.runs import encoder, workdir
from ape_jax.runs.encoder import Encoder
from ape_jax.storage import atomic, disk
from ape_jax.terminal import tables as report
from ape_jax.training import metrics

_IMAGES = 400  # That are searched for the gallery.
_QUERIES = 16
_FIGURES = ("train/loss", "train/scale", "train/lr", "train/grad_norm")


def write(
    directory: str | os.PathLike[str],
    labelled: Labelled | None = None,
    templates: Sequence[str] = ("{}",),
) -> pathlib.Path:
    """Writes the report of a finished run, with the pictures in it.

    Args:
      directory: the work directory.
      labelled: images and classes for a confusion matrix.
      templates: the prompts for it.

    Returns:
      The file, `report.html`.

    Raises:
      UserError: for a directory without a finished run, or pairs or images that cannot be read.
    """
    path = workdir.locate(directory)
    config = workdir.read_config(path)
    summary = workdir.finished(path, config)
    specs = config.data.eval.items()
    sets = {name: open_pairs(spec, key=f"data.eval.{name}") for name, spec in specs}
    model = encoder.load(path)
    parts = [_overview(config, summary), _retrieval(summary, sets), _curves(metrics.read(path))]
    parts += [_gallery(model, pairs, name) for name, pairs in sets.items()]
    if labelled is not None:
        parts.append(confusion.section(model, labelled, templates))
    parts += [_parameters(model.shares()), _config(config)]
    file = path / "report.html"
    with disk.write_errors(f"--workdir: {file}", "make room for it there"):
        atomic.write_text(file, html.document(f"ape_jax: {path.name}", parts))
    return file


def _overview(config: Config, summary: Mapping[str, Any]) -> html.Section:
    rows = [
        ["image tower", f"{config.image.tower} ({config.image.tune})"],
        ["text tower", f"{config.text.tower} ({config.text.tune})"],
        ["heads", f"{config.image.head.name} and {config.text.head.name}"],
        ["method", config.method],
        ["training pairs", f"{config.data.pairs}: {summary['pairs']:,} images"],
        ["steps", f"{summary['step']:,} of {config.train.batch:,} pairs"],
        ["trained parameters", f"{summary['parameters_trained']:,}"],
        ["seconds, last start", f"{summary['seconds_last_start']:.1f}"],
    ]
    return html.Section("The run", html.table(["", ""], rows))


def _retrieval(summary: Mapping[str, Any], sets: Mapping[str, Pairs]) -> html.Section:
    rows = []
    for name, pairs in sets.items():
        image_index = np.repeat(np.arange(len(pairs)), [len(pair.captions) for pair in pairs])
        chance = retrieval.chance_metrics(len(pairs), image_index)
        found = {key: summary[f"eval/{name}/{key}"] for key in report.RETRIEVAL}
        for title, figures in (
            (f"{name} ({len(pairs)} images)", found),
            (f"{name}, chance", chance),
        ):
            rows.append([title, *(report.cell(key, figures[key]) for key in report.RETRIEVAL)])
    if not rows:
        return html.Section("Retrieval", html.paragraph("The run has no data.eval."))
    head = ["R@k in percent", *map(report.metric_title, report.RETRIEVAL)]
    return html.Section("Retrieval", html.table(head, rows))


def _curves(lines: Sequence[Mapping[str, float]]) -> html.Section:
    def points(key: str) -> list[tuple[float, float]]:
        return [(line["step"], line[key]) for line in lines if key in line]

    drawn = [charts.chart(key.removeprefix("train/"), {key: points(key)}) for key in _FIGURES]
    recalls = sorted({key for line in lines for key in line if key.endswith("_r10")})
    if recalls and len(points(recalls[0])) > 1:
        named = {key.removeprefix("eval/"): points(key) for key in recalls}
        drawn.append(charts.chart("R@10", named))
    body = f'<div class="charts">{"".join(drawn)}</div>' if any(drawn) else ""
    return html.Section("Curves", body or html.paragraph("Nothing was trained step by step."))


def _gallery(model: Encoder, pairs: Pairs, name: str) -> html.Section:
    heading = f"What it finds: {name}"
    if isinstance(pairs, VectorPairs):
        return html.Section(heading, html.paragraph("The pairs are vectors: nothing to show."))
    if model.config.data.on_error == "skip":
        pairs = model.leave_out_unreadable(pairs, name)
    some = gallery.sample(pairs, _IMAGES)
    words = html.paragraph(
        f"{min(_QUERIES, len(some))} captions, evenly spaced, and the best of {len(some)} images "
        f"out of {len(pairs)} for each; the caption's own image has a green frame."
    )
    found = gallery.search(model, some, _QUERIES)
    background = model.config.data.background
    return html.Section(heading, words + gallery.gallery(found, some, background))


def _parameters(shares: Sequence[selection.Share]) -> html.Section:
    rows = [share.cells() for share in shares]
    return html.Section("What was trained", html.table(selection.SHARE_HEAD, rows))


def _config(config: Config) -> html.Section:
    values, usual = config_lib.flatten(config), config_lib.flatten(Config())
    changed = [[key, repr(value)] for key, value in values.items() if value != usual.get(key)]
    every = [[key, repr(value)] for key, value in values.items()]
    body = html.table(["set by the run", ""], changed)
    return html.Section("Config", body + html.folded("all keys", html.table(["", ""], every)))
