"""Figures as sentences that need no knowledge of the field."""

from __future__ import annotations

from collections.abc import Mapping

from ape_jax.evaluators.interval import wilson
from ape_jax.pages import html


def of_100(share: float) -> str:
    """A rate as so many of 100.

    Example:
      >>> of_100(0.438), of_100(0.002), of_100(0.0)
      ('44', 'fewer than 1', '0')
    """
    if 0 < share < 0.005:
        return "fewer than 1"
    return f"{100 * share:.0f}"


def headline(figures: Mapping[str, float], chance: Mapping[str, float], images: int) -> str:
    """The main figure in a sentence: what captions find.

    Args:
      figures: of `retrieval_metrics`.
      chance: the same, expected of a random order.
      images: how many there are to choose from.
    """
    found, guessed = of_100(figures["t2i_r10"]), of_100(chance["t2i_r10"])
    return (
        f"The right image is among the first 10 of {images:,} for {found} of 100 captions; "
        f"chance {guessed}."
    )


def card(
    name: str,
    figures: Mapping[str, float],
    chance: Mapping[str, float],
    images: int,
    captions: int,
) -> str:
    """One data set: the main figure, large, and the other direction in a sentence.

    Args:
      name: of the data set.
      figures: of `retrieval_metrics`.
      chance: the same, expected of a random order.
      images: their number.
      captions: their number.
    """
    share, guessed = figures["t2i_r10"], chance["t2i_r10"]
    low, high = wilson(round(share * captions), captions)
    return (
        f'<div class="card"><h3>{html.escape(name)}</h3>'
        f'<div class="big">{of_100(share)} <small>of 100 captions</small></div>'
        + html.bar(share, guessed)
        + html.paragraph(
            f"find their image among the first 10 of {images:,}; chance {of_100(guessed)}."
        )
        + html.paragraph(
            f"Of 100 images, {of_100(figures['i2t_r10'])} find a caption of their own among the "
            f"first 10 of {captions:,}; chance {of_100(chance['i2t_r10'])}."
        )
        + html.paragraph(
            f"{captions:,} captions: so many that the first figure could as well be "
            f"{of_100(low)} or {of_100(high)}.",
            "soft",
        )
        + "</div>"
    )
