"""The parts of a self-contained HTML page: no script, no server, no network.

Every function gives a piece of HTML; whatever comes from the user is escaped here.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Sequence

from ape_jax.pages.style import STYLE

# Should anything in a page ever be taken for more than text, it runs nothing and asks nobody.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page: its heading, as text, and its body, as HTML."""

    heading: str
    body: str

    @property
    def anchor(self) -> str:
        """The name that links to this part have."""
        return slug(self.heading)


def document(title: str, head: str, sections: Sequence[Section], pictures: str = "") -> str:
    """The whole page.

    Args:
      title: plain text.
      head: HTML that stands under the title, before the contents.
      sections: in their order; each is listed in the contents.
      pictures: style rules of the pictures (`Pictures.rules`).
    """
    links = [f'<a href="#{s.anchor}">{escape(s.heading)}</a>' for s in sections]
    parts = [f'<h2 id="{s.anchor}">{escape(s.heading)}</h2>\n{s.body}' for s in sections]
    name = escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{STYLE}{pictures}</style></head>\n<body><h1>{name}</h1>\n"
        f"{head}\n<nav>{''.join(links)}</nav>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def escape(text: str) -> str:
    """Plain text as HTML, in an element or in an attribute."""
    return html.escape(text, quote=True)


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters, with dots where it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def slug(text: str) -> str:
    """A name for links to a part of the page.

    Example:
      >>> slug("What it finds: own")
      'what-it-finds-own'
    """
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "part"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text.

    Args:
      text: the words.
      kind: class of the style, '' for none.
    """
    return f"<p{_class(kind)}>{escape(text)}</p>"


def heading(text: str, anchor: str = "") -> str:
    """A heading inside a section."""
    name = f' id="{anchor}"' if anchor else ""
    return f"<h3{name}>{escape(text)}</h3>"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    kind: str = "",
    soft: Sequence[int] = (),
) -> str:
    """A table of plain text.

    Args:
      head: titles of the columns; none of them, no line of titles.
      rows: cells of each row.
      kind: class of the style, '' for none.
      soft: indices of rows that stand back, such as chance.
    """

    def line(cells: Sequence[str], tag: str, kind: str = "") -> str:
        made = "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells)
        return f"<tr{_class(kind)}>{made}</tr>"

    body = [line(row, "td", "soft" if i in soft else "") for i, row in enumerate(rows)]
    top = line(head, "th") if any(head) else ""
    return f'<div class="scroll"><table{_class(kind)}>{top}{"".join(body)}</table></div>'


def folded(summary: str, body: str) -> str:
    """A body that shows when its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def bar(share: float, chance: float) -> str:
    """A bar of a rate, with a mark where chance is.

    Args:
      share: in [0, 1].
      chance: in [0, 1].
    """
    words = f"{100 * share:.0f} percent, chance {100 * chance:.0f} percent"
    return (
        f'<div class="bar" role="img" aria-label="{words}"><i style="width:{100 * share:.1f}%"></i>'
        f'<b style="left:{100 * chance:.1f}%"></b></div>'
    )


def histogram(title: str, bins: Sequence[tuple[str, int]]) -> str:
    """A table of ranges with a bar each, as long as its share of the largest.

    Args:
      title: plain text.
      bins: ranges and their counts.
    """
    largest = max((count for _, count in bins), default=1)
    rows = [
        f"<tr><td>{escape(name)}</td><td>{count:,}</td>"
        f'<td><div class="bar"><i style="width:{100 * count / largest:.1f}%"></i></div></td></tr>'
        for name, count in bins
    ]
    table = f'<div class="scroll"><table>{"".join(rows)}</table></div>'
    return f"<div><h3>{escape(title)}</h3>{table}</div>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
