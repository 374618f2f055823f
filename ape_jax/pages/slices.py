"""How captions do by the script that they are written in and by their length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ape_jax.data.overview.scripts import script
from ape_jax.evaluators.interval import wilson
from ape_jax.evaluators.retrieval import RECALL_AT
from ape_jax.pages import html, words
from ape_jax.pages.queries import Searched

_LENGTHS = (10, 25, 60, 140)  # Characters, which every language has.
_FEW = 20


def length(text: str) -> str:
    """The class of a text's length in characters.

    Example:
      >>> length("a cat"), length("a" * 500)
      ('1 to 10 characters', 'over 140 characters')
    """
    low = 1
    for high in _LENGTHS:
        if len(text) <= high:
            return f"{low} to {high} characters"
        low = high + 1
    return f"over {_LENGTHS[-1]} characters"


def slices(searched: Searched) -> str:
    """A table of the captions' figures by script and by length; '' where all are of one kind."""
    order = [length("x" * n) for n in (*_LENGTHS, _LENGTHS[-1] + 1)]
    scripts = _grouped(searched.captions, script)
    lengths = _grouped(searched.captions, length)
    rows = _rows(searched, sorted(scripts.items(), key=lambda item: -len(item[1])))
    rows += _rows(searched, [(name, lengths[name]) for name in order if name in lengths])
    if not rows:
        return ""
    head = ["captions", "how many", "right image in the first 10, of 100", "range", "median place"]
    note = (
        "The range holds the true figure in 95 of 100 such samples. Scripts and characters are "
        f"counted, languages are not recognised; fewer than {_FEW} captions say little."
    )
    return html.table(head, rows) + html.paragraph(note, "soft")


def _grouped(captions: Sequence[str], kind: Callable[[str], str]) -> Mapping[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, caption in enumerate(captions):
        groups.setdefault(kind(caption), []).append(index)
    return groups


def _rows(searched: Searched, groups: Sequence[tuple[str, list[int]]]) -> list[list[str]]:
    if len(groups) < 2:
        return []
    rows = []
    for name, indices in groups:
        ranks = searched.caption_ranks[indices]
        hits = int((ranks <= RECALL_AT[-1]).sum())
        low, high = wilson(hits, len(ranks))
        few = " (few)" if len(ranks) < _FEW else ""
        rows.append(
            [
                f"{name}{few}",
                str(len(ranks)),
                words.of_100(hits / len(ranks)),
                f"{words.of_100(low)} to {words.of_100(high)}",
                f"{np.median(ranks):g}",
            ]
        )
    return rows
