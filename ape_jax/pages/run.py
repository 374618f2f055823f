"""`report.html` of a work directory: what was trained, how well it does, and what it finds."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ape_jax import config as config_lib
from ape_jax.align.tuning import selection
from ape_jax.config import Config
from ape_jax.data.labelled import Labelled
from ape_jax.data.pairs import Pairs
from ape_jax.data.vectors import VectorPairs
from ape_jax.pages import confusion, curves, figures, html, queries, slices
from ape_jax.pages.gallery import Gallery
from ape_jax.pages.pictures import Pictures
from ape_jax.runs import encoder
from ape_jax.runs.directory import own_pairs, workdir
from ape_jax.runs.encoder import Encoder
from ape_jax.storage import atomic, disk
from ape_jax.training import metrics

_IMAGES = 400  # That are searched for the rows of one data set.
_PICTURES = 800  # Of all data sets: at about 5 KB each the page stays below 6 MB.
_TRAINING = "training pairs"


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
    sets = own_pairs.evaluation_sets(config, path)
    model, pictures = encoder.load(path), Pictures()
    found = figures.read(summary, sets)
    chances = {entry.name: entry.chance for entry in found}
    parts = [_notices(summary)] if summary.get("notices") else []
    parts += [figures.section(found)] if found else []
    parts.append(curves.section(metrics.read(path), config, chances))
    parts += _examples(model, path, sets, pictures)
    if labelled is not None:
        if config.data.on_error == "skip":
            labelled = model.leave_out_unreadable(labelled, "--labelled")
        parts.append(confusion.section(model, labelled, templates))
    parts += [_overview(config, summary), _parameters(model.shares()), _config(config)]
    head = html.paragraph(_how(config, summary), "soft") + figures.headline(found)
    page = html.document(f"ape_jax: {path.name}", head, [*parts, _about(pictures)], pictures.rules)
    file = path / "report.html"
    with disk.write_errors(f"--workdir: {file}", "make room for it there"):
        atomic.write_text(file, page)
    return file


def _how(config: Config, summary: Mapping[str, Any]) -> str:
    """How the model was made, in a sentence."""
    sides = " and ".join(
        f"{config.side(side).tower} ({side}s, {config.side(side).tune})"
        for side in ("image", "text")
    )
    if not config.trains:
        return f"{sides}, aligned by {config.method} on {summary['pairs']:,} images."
    start = f", started from {config.start.method}" if config.start.method else ""
    return (
        f"{sides}, aligned by training {summary['parameters_trained']:,} parameters for "
        f"{summary['step']:,} steps on {summary['pairs']:,} images{start}."
    )


def _examples(
    model: Encoder, path: pathlib.Path, sets: Mapping[str, Pairs], pictures: Pictures
) -> list[html.Section]:
    """What is found in each evaluation set; without any, in the training pairs."""
    config = model.config
    if sets:
        count = min(_IMAGES, _PICTURES // len(sets))
        return [_finds(model, pairs, name, count, pictures) for name, pairs in sets.items()]
    if not config.data.pairs:
        return []
    pairs = own_pairs.training_pairs(config, path)
    return [_finds(model, pairs, _TRAINING, _IMAGES, pictures)]


def _finds(model: Encoder, pairs: Pairs, name: str, count: int, pictures: Pictures) -> html.Section:
    heading = f"What it finds: {name}"
    if isinstance(pairs, VectorPairs):
        return html.Section(heading, html.paragraph("The pairs are vectors: nothing to show."))
    if model.config.data.on_error == "skip":
        pairs = model.leave_out_unreadable(pairs, name)
    some = queries.sample(pairs, max(1, count))
    searched = queries.search(model, some)
    rows = Gallery(name, searched, pictures, model.config.data.background)
    of = f" out of {len(pairs):,}, evenly spaced" if len(some) < len(pairs) else ""
    seen = " Training has seen them, so this says nothing of new ones." if name == _TRAINING else ""
    parts = [
        html.paragraph(
            f"Searched are {len(some):,} images{of}, and {len(searched.captions):,} captions."
            f"{seen} Numbers under pictures are places and cosines (1 is the same direction, 0 "
            "unrelated). Right answers are green; one that is not among the first stands behind "
            "the dots, with its place."
        ),
        html.heading("Captions and the images that they find"),
        rows.captions(),
        html.heading("Images and the captions that they find"),
        rows.images(),
    ]
    for title, body in (
        ("Worst confusions: captions that prefer a wrong image by far", rows.confusions()),
        ("Images that are found too often: first, and wrong", rows.favourites()),
        ("By script and length of captions", slices.slices(searched)),
    ):
        parts += [html.heading(title), body] if body else []
    return html.Section(heading, "".join(parts))


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
    if "best_step" in summary:
        rows.append(["state that is used", f"of step {summary['best_step']:,}, which did best"])
    return html.Section("The run", html.table([], rows, "words"))


def _notices(summary: Mapping[str, Any]) -> html.Section:
    """What the run said while it trained, in the order of its steps."""
    noticed = [html.paragraph(notice["message"]) for notice in summary["notices"]]
    return html.Section("What was noticed", "".join(noticed))


def _parameters(shares: Sequence[selection.Share]) -> html.Section:
    rows = [share.cells() for share in shares]
    return html.Section("What was trained", html.table(selection.SHARE_HEAD, rows))


def _config(config: Config) -> html.Section:
    values, usual = config_lib.flatten(config), config_lib.flatten(Config())
    changed = [[key, repr(value)] for key, value in values.items() if value != usual.get(key)]
    every = [[key, repr(value)] for key, value in values.items()]
    body = html.paragraph("Keys that differ from their defaults.") + html.table(
        [], changed, "words"
    )
    return html.Section("Config", body + html.folded("all keys", html.table([], every, "words")))


def _about(pictures: Pictures) -> html.Section:
    words = (
        f"One file, {len(pictures):,} pictures of {pictures.nbytes / 1e6:.1f} MB in all; it holds "
        "no script and asks nothing of a network. Made by ape_jax: python -m ape_jax.report "
        "--workdir DIR makes it again."
    )
    return html.Section("About this page", html.paragraph(words, "soft"))
