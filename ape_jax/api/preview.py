"""What an `Aligner` shows of itself: a line or two as text, figures and pictures in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from ape_jax.config import Config
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.data.vectors import VectorPairs
from ape_jax.errors import UserError
from ape_jax.evaluators import retrieval
from ape_jax.images.decode import load_image
from ape_jax.pages import html, pictures
from ape_jax.terminal import tables

_PICTURES = 6
_CAPTION = 120


def text(config: Config, summary: Mapping[str, Any], directory: str) -> str:
    """The model in a few lines of plain text.

    Args:
      config: of the run.
      summary: its `summary.json`, {} where there is none.
      directory: where it is.
    """
    lines = [_title(config, summary), f"in {directory}"]
    if any(key.startswith("eval/") for key in summary):
        lines.append(tables.retrieval_table(summary))
    return "\n".join(lines)


def html_of(config: Config, summary: Mapping[str, Any], directory: str) -> str:
    """The same as a piece of a page, with thumbnails of a few pairs; self-contained and escaped."""
    sets = _sets(config)
    parts = [html.paragraph(_title(config, summary)), html.paragraph(f"in {directory}")]
    rows = [row for name, pairs in sets.items() for row in _rows(name, pairs, summary)]
    if rows:
        head = ["R@k in percent", *map(tables.metric_title, tables.RETRIEVAL)]
        parts.append(html.table(head, rows))
    shown = next(iter(sets.values()), None) or _opened(config.data.pairs, Reading.of(config.data))
    if shown is not None:
        parts.append(_pictures(shown, config.data.background))
    return "<div>" + "".join(parts) + "</div>"


def _title(config: Config, summary: Mapping[str, Any]) -> str:
    pairs = f", {summary['pairs']:,} images with captions" if "pairs" in summary else ""
    return f"ape_jax: {config.image.tower} aligned with {config.text.tower}{pairs}"


def _sets(config: Config) -> dict[str, Pairs]:
    opened = {
        name: _opened(spec, Reading.of(config.data)) for name, spec in config.data.eval.items()
    }
    return {name: pairs for name, pairs in opened.items() if pairs is not None}


def _opened(spec: str, reading: Reading) -> Pairs | None:
    """The pairs, unless they are elsewhere by now or are vectors: a preview never fails."""
    try:
        pairs = open_pairs(spec, reading=reading) if spec else None
    except UserError:
        return None
    return None if isinstance(pairs, VectorPairs) else pairs


def _rows(name: str, pairs: Pairs, summary: Mapping[str, Any]) -> list[list[str]]:
    found = {key: summary.get(f"eval/{name}/{key}") for key in tables.RETRIEVAL}
    if None in found.values():
        return []
    image_index = np.repeat(np.arange(len(pairs)), [len(pair.captions) for pair in pairs])
    chance = retrieval.chance_metrics(len(pairs), image_index)
    return [
        [title, *(tables.cell(key, figures[key]) for key in tables.RETRIEVAL)]
        for title, figures in ((f"{name} ({len(pairs)} images)", found), ("chance", chance))
    ]


def _pictures(pairs: Pairs, background: tuple[int, int, int]) -> str:
    figures = []
    for i in np.unique(np.linspace(0, len(pairs) - 1, _PICTURES).astype(int)):
        caption = pairs[int(i)].captions[0]
        short = caption if len(caption) <= _CAPTION else f"{caption[:_CAPTION]}..."
        try:
            image = load_image(pairs[int(i)].image, background=background)
        except UserError:
            continue
        below = f'<figcaption style="font-size:12px">{escape(short)}</figcaption>'
        style = "display:inline-block;vertical-align:top;width:172px;margin:4px"
        figures.append(f'<figure style="{style}">{pictures.img(image, short)}{below}</figure>')
    return "".join(figures)
