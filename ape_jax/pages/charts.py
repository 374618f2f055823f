"""Line charts as SVG inside a page."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 340, 190, 60, 22, 22
_MOST = 400  # Points a line; more than there are pixels would only make the page large.
_COLOURS = ("#3b7dd8", "#d8743b", "#3ba55d", "#a13bd8", "#888888")


def chart(title: str, lines: Mapping[str, Points]) -> str:
    """One chart: a line each, points that are not finite left out.

    Args:
      title: above it.
      lines: (x, y) in ascending order of x, by name.

    Returns:
      SVG; '' where there is nothing to draw.
    """
    finite = {name: _thinned(points) for name, points in lines.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return ""
    every = [point for points in finite.values() for point in points]
    (x0, x1), (y0, y1) = (_range([point[i] for point in every]) for i in (0, 1))
    parts = [_text(_LEFT, 12, title, "start")]
    parts += [_text(_LEFT - 4, _y(y, y0, y1) + 3, f"{y:.3g}", "end") for y in (y0, y1)]
    parts += [_text(_x(x, x0, x1), _HEIGHT - 6, f"{x:g}", "middle") for x in (x0, x1)]
    for place, (name, points) in enumerate(finite.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        path = " ".join(f"{_x(x, x0, x1):.1f},{_y(y, y0, y1):.1f}" for x, y in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" points="{path}"/>')
        if len(finite) > 1:
            parts.append(_text(_WIDTH - 16, _TOP + 12 * (place + 1), name, "end", colour))
    frame = f'<path d="M{_LEFT},{_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - 12}"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="{html.escape(title, quote=True)}"><g fill="none" stroke="#8888">{frame}</g>'
        f"{''.join(parts)}</svg>"
    )


def _thinned(points: Points) -> Points:
    kept = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(kept) <= _MOST:
        return kept
    return [kept[round(i * (len(kept) - 1) / (_MOST - 1))] for i in range(_MOST)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _x(x: float, low: float, high: float) -> float:
    return _LEFT + (x - low) / (high - low) * (_WIDTH - 12 - _LEFT)


def _y(y: float, low: float, high: float) -> float:
    return _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)


def _text(x: float, y: float, text: str, anchor: str, colour: str = "") -> str:
    style = f' style="fill:{colour}"' if colour else ""
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {where}{style}>{html.escape(text)}</text>"
