"""One self-contained page about pairs: figures, a sample with thumbnails, and what stands out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from ape_jax.data.overview.overview import Overview, spaced
from ape_jax.data.overview.repeats import Repeated
from ape_jax.data.pairs import Pairs
from ape_jax.data.table.problems import Problems
from ape_jax.pages import html
from ape_jax.pages.html import Section
from ape_jax.pages.pictures import Pictures
from ape_jax.pages.source.facts import facts, repeated_caption
from ape_jax.pages.thumbs import Thumbs

_SAMPLE = 60
_THUMBS = 6  # Of images that have something in common.
_CAPTIONS = 6
_LONGEST = 400  # Characters of a caption; one of a million would be the page.
_BROKEN = 20  # Rows of each kind.


def document(overview: Overview, pairs: Pairs) -> str:
    """The page as HTML; a few MB at most.

    Args:
      overview: of the pairs.
      pairs: the pairs.
    """
    rows = _Rows(pairs)
    sections = [_figures(overview, pairs), _notes(pairs.table.notes), _problems(pairs.problems)]
    few = overview.images <= _SAMPLE
    title = "All pairs" if few else f"A sample of {_SAMPLE}, evenly spaced"
    sections.append(Section(title, rows.of(spaced(overview.images, _SAMPLE).tolist())))
    if not few:
        sections.append(Section("Longest captions", rows.of(overview.longest)))
        sections.append(Section("Shortest captions", rows.of(overview.shortest)))
    sections += [
        _repeated("The same caption on several images", overview.same_caption.most, rows, pairs),
        _repeated("Images of equal bytes", overview.same_image.most, rows, None),
        rows.unreadable(),
    ]
    head = html.paragraph(f"{overview.images:,} images, {overview.captions:,} captions", "lead")
    shown = [section for section in sections if section.body]
    about = _about(rows.pictures)
    return html.document(f"Pairs: {pairs.spec}", head, [*shown, about], rows.pictures.rules)


class _Rows:
    """Rows of a picture and its captions; each picture is in the page once.

    Attributes:
      pictures: the page's thumbnails.
    """

    def __init__(self, pairs: Pairs):
        self.pictures = Pictures()
        self._pairs, self._thumbs = pairs, Thumbs(pairs, self.pictures)

    def of(self, rows: Iterable[int]) -> str:
        """Pictures with their captions beside them, two pairs in a line."""
        return f'<div class="two">{"".join(self._row(int(row)) for row in rows)}</div>'

    def thumb(self, row: int) -> str:
        """A picture; a frame that says so where it cannot be read."""
        return self._thumbs.thumb(row)

    def unreadable(self) -> Section:
        """Why pictures of the page cannot be read."""
        rows = [[reason] for reason in self._thumbs.reasons.values()]
        body = html.table([], rows, "words") if rows else ""
        return Section("Images of this page that cannot be read", body)

    def _row(self, row: int) -> str:
        pair = self._pairs[row]
        captions = "".join(
            f"<li>{html.escape(html.shortened(text, _LONGEST))}</li>"
            for text in itertools.islice(pair.captions, _CAPTIONS)
        )
        more = len(pair.captions) - _CAPTIONS
        rest = f"<small>and {more:,} more</small>" if more > 0 else ""
        return (
            f'<div class="row"><div class="ask">{self.thumb(row)}</div>'
            f'<div class="hits"><ol>{captions}</ol>{rest}</div></div>'
        )


def _figures(overview: Overview, pairs: Pairs) -> Section:
    table = html.table([], [list(fact) for fact in facts(overview, pairs)], "words")
    spreads = [
        ("Captions an image", overview.per_image),
        ("Characters a caption", overview.characters),
        ("Words a caption", overview.words),
    ]
    if overview.tokens is not None:
        spreads.append(("Tokens a caption", overview.tokens.lengths))
    drawn = "".join(html.histogram(title, spread.bins()) for title, spread in spreads)
    note = "Scripts are counted by letters; languages are not recognised."
    return Section(
        "At a glance", f'{table}<div class="charts">{drawn}</div>{html.paragraph(note, "soft")}'
    )


def _notes(notes: Sequence[str]) -> Section:
    body = html.table([], [[note] for note in notes], "words") if notes else ""
    return Section("How it was read", body)


def _problems(problems: Problems) -> Section:
    rows = [
        [problem.kind, html.shortened(problem.where, _LONGEST), problem.reason]
        for problem in sorted(problems.first(_BROKEN), key=lambda problem: problem.kind)
    ]
    body = ""
    if rows:
        counts = [[kind, f"{count:,}"] for kind, count in problems.counts().items()]
        body = html.table(["kind", "rows"], counts)
        body += html.heading(f"The first of each kind, at most {_BROKEN}")
        body += html.table(["kind", "where", "what is wrong"], rows, "words")
    return Section("Rows that cannot be used", body)


def _repeated(
    heading: str, most: Sequence[Repeated], rows: _Rows, captions: Pairs | None
) -> Section:
    made = []
    for some in most:
        text = "" if captions is None else repeated_caption(captions, some.rows)
        ask = f"<b>{html.escape(html.shortened(text, _LONGEST))}</b>" if text else ""
        ask += f"<small>{some.images:,} images</small>"
        hits = "".join(rows.thumb(row) for row in some.rows[:_THUMBS])
        if some.images > _THUMBS:
            hits += '<div class="gap">…</div>'
        body = f'<div class="ask said">{ask}</div><div class="hits">{hits}</div>'
        made.append(f'<div class="row">{body}</div>')
    return Section(heading, f'<div class="two">{"".join(made)}</div>' if made else "")


def _about(pictures: Pictures) -> Section:
    words = (
        f"One file, {len(pictures):,} pictures of {pictures.nbytes / 1e6:.1f} MB in all; it holds "
        "no script and asks nothing of a network. Made by ape_jax: python -m ape_jax.pairs SPEC "
        "--html FILE makes it again."
    )
    return Section("About this page", html.paragraph(words, "soft"))
