"""One self-contained page about a curation: what was taken for each target, and what was left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ape_jax.curation.agreement import unrelated
from ape_jax.curation.curated import Curated
from ape_jax.data.overview.overview import spaced
from ape_jax.pages import html
from ape_jax.pages.html import Section
from ape_jax.pages.pictures import Pictures
from ape_jax.pages.thumbs import Thumbs

_TARGETS = 30
_THUMBS = 6  # Of a target.
_LEFT_OUT = 24  # Pairs of a kind.
_LONGEST = 160


def document(curated: Curated) -> str:
    """The page as HTML; a few MB at most."""
    page = _Page(curated)
    sections = [
        Section("At a glance", html.table([], facts(curated), "words")),
        page.served(),
        page.poorly(),
        page.repeated(),
        page.mismatched(),
        page.unreadable(),
    ]
    head = html.paragraph(
        f"{curated.taken:,} of {len(curated.pool):,} pairs, for {len(curated.target):,} "
        f"{curated.target.kind}",
        "lead",
    )
    shown = [section for section in sections if section.body]
    words = (
        f"One file, {len(page.pictures):,} pictures of {page.pictures.nbytes / 1e6:.1f} MB in all; "
        "it holds no script and asks nothing of a network. Made by ape_jax: ape-jax curate ... "
        "--html FILE makes it again."
    )
    about = Section("About this page", html.paragraph(words, "soft"))
    title = f"Curated: {curated.pool.spec}"
    return html.document(title, head, [*shown, about], page.pictures.rules)


def facts(curated: Curated) -> list[tuple[str, str]]:
    """Each figure as its name and its value in words."""
    served = np.bincount(curated.choice.target, minlength=len(curated.target))
    found = [
        ("pool", f"{len(curated.pool):,} pairs of {curated.pool.spec}"),
        ("target", f"{len(curated.target):,} {curated.target.kind} of {curated.target.spec}"),
        ("chosen", f"{curated.taken:,}"),
        *((f"left out: {kind}", f"{count:,}") for kind, count in curated.left_out().items()),
    ]
    if curated.shares is not None:
        found.append(
            (
                "captions that are not about their image",
                f"at most about {100 * unrelated(curated.shares):.0f} % of the pool, by chance's "
                "share of badly matched pairs",
            )
        )
    few, half, most = (int(x) for x in np.quantile(served, (0, 0.5, 1), method="lower"))
    found.append(("chosen pairs nearest to a target", f"{few:,} to {most:,}, median {half:,}"))
    cosines = np.quantile(curated.choice.cosine, (0.1, 0.5, 0.9))
    told = " / ".join(f"{value:.2f}" for value in cosines)
    return [*found, ("their cosine, 10th / 50th / 90th percentile", told)]


class _Page:
    """The sections with pictures.

    Attributes:
      pictures: the page's thumbnails.
    """

    def __init__(self, curated: Curated):
        self.pictures = Pictures()
        self._found = curated
        self._pool = Thumbs(curated.pool, self.pictures, "p")
        self._targets = Thumbs(curated.target.pairs, self.pictures, "t")

    def served(self) -> Section:
        """Some targets with the chosen pairs that are nearest to them."""
        count = len(self._found.target)
        few = count <= _TARGETS
        name = "What was taken, by target" if few else f"What was taken for {_TARGETS} of them"
        return Section(name, self._rows(spaced(count, _TARGETS).tolist()))

    def poorly(self) -> Section:
        """The targets whose nearest chosen pair is the farthest: more pairs are wanted there."""
        best = np.full(len(self._found.target), -1.0)
        np.maximum.at(best, self._found.choice.target, self._found.choice.cosine)
        if len(best) <= _TARGETS:
            return Section("", "")
        worst = np.argsort(best, kind="stable")[: _TARGETS // 3]
        return Section("Targets that the pool serves least", self._rows(worst.tolist()))

    def repeated(self) -> Section:
        """Near-duplicates beside the pair that stays in their place."""
        rows = np.flatnonzero(self._found.is_repeated)
        made = []
        for row in _some(rows):
            stays = self._pool.thumb(int(self._found.repeats[row]), "stays", "right")
            gone = self._pool.thumb(row, "left out", "missed")
            made.append(_row(self._caption(row), f"{stays}{gone}", "ask said"))
        return Section("Near-duplicates", _two(made))

    def mismatched(self) -> Section:
        """The pairs whose captions suit their images least."""
        shares = self._found.shares
        rows = np.flatnonzero(self._found.is_mismatched)
        if shares is None:
            return Section("", "")
        made = []
        for row in rows[np.argsort(-shares[rows], kind="stable")][:_LEFT_OUT].tolist():
            note = f"{100 * shares[row]:.0f} of 100 other captions and images suit it better"
            ask = f"{self._caption(row)}<small>{html.escape(note)}</small>"
            made.append(_row(ask, self._pool.thumb(row), "ask said"))
        return Section("Captions that do not suit their image, the worst", _two(made))

    def unreadable(self) -> Section:
        """Why pictures of the page cannot be read."""
        reasons = [*self._pool.reasons.values(), *self._targets.reasons.values()]
        body = html.table([], [[reason] for reason in reasons], "words") if reasons else ""
        return Section("Images of this page that cannot be read", body)

    def _rows(self, targets: Sequence[int]) -> str:
        choice, made = self._found.choice, []
        labels = self._found.target.labels(np.asarray(targets, np.int64))
        for target, label in zip(targets, labels, strict=True):
            near = np.flatnonzero(choice.target == target)
            near = near[np.argsort(-choice.cosine[near], kind="stable")]
            hits = "".join(
                self._pool.thumb(int(choice.rows[i]), f"{choice.cosine[i]:.2f}")
                for i in near[:_THUMBS]
            )
            more = f"{len(near):,} pairs are nearest to it"
            ask = f"<b>{html.escape(html.shortened(label, _LONGEST))}</b>"
            if self._found.target.kind != "names":
                ask += self._targets.thumb(int(target), "target")
            made.append(_row(f"{ask}<small>{more}</small>", hits))
        return "".join(made)

    def _caption(self, row: int) -> str:
        text = self._found.pool[row].captions[0]
        return f"<b>{html.escape(html.shortened(text, _LONGEST))}</b>"


def _some(rows: np.ndarray) -> list[int]:
    return rows[spaced(len(rows), _LEFT_OUT)].tolist() if len(rows) else []


def _row(ask: str, hits: str, kind: str = "ask") -> str:
    return f'<div class="row"><div class="{kind}">{ask}</div><div class="hits">{hits}</div></div>'


def _two(rows: Sequence[str]) -> str:
    return f'<div class="two">{"".join(rows)}</div>' if rows else ""
