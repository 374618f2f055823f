"""The parts of a self-contained HTML page: no script, no server, no network.

Every function gives a piece of HTML; whatever comes from the user is escaped here.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color-scheme: light dark; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { padding: .15rem .6rem; border-bottom: 1px solid #8884; text-align: right; }
td:first-child, th:first-child { text-align: left; }
img { width: 84px; height: 84px; object-fit: contain; border: 3px solid #8883; background: #fff; }
img.right { border-color: #2a2; }
.query { display: flex; gap: .4rem; align-items: center; margin: .3rem 0; }
.query p { width: 22rem; margin: 0; overflow-wrap: anywhere; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; }
svg text { font: 10px system-ui, sans-serif; fill: currentColor; }
"""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page: its heading, as text, and its body, as HTML."""

    heading: str
    body: str


def document(title: str, sections: Sequence[Section]) -> str:
    """The whole page.

    Args:
      title: plain text.
      sections: in their order.
    """
    parts = [f"<h2>{html.escape(s.heading)}</h2>\n{s.body}" for s in sections]
    name = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{name}</title><style>{_STYLE}</style></head>\n<body><h1>{name}</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def folded(summary: str, body: str) -> str:
    """A body that shows when its summary is clicked."""
    return f"<details><summary>{html.escape(summary)}</summary>{body}</details>"


def query(text: str, note: str, pictures: Sequence[str]) -> str:
    """A line of a gallery: what was asked, a remark, and what was found (`picture`)."""
    words = f"<p><b>{html.escape(text)}</b><br>{html.escape(note)}</p>"
    return f'<div class="query">{words}{"".join(pictures)}</div>'


def picture(image: UInt8[np.ndarray, "H W 3"], title: str, right: bool = False) -> str:
    """A thumbnail inside the page itself.

    Args:
      image: uint8 [H, W, 3].
      title: what shows when the pointer rests on it.
      right: whether it is marked as what was looked for.
    """
    small, file = Image.fromarray(image), io.BytesIO()
    small.thumbnail((168, 168))
    small.save(file, "JPEG", quality=85)
    content = base64.b64encode(file.getvalue()).decode()
    name, mark = html.escape(title, quote=True), ' class="right"' if right else ""
    return f'<img{mark} alt="{name}" title="{name}" src="data:image/jpeg;base64,{content}">'
