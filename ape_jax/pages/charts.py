"""Line charts as SVG inside a page: axes with ticks and titles, a name at the end of each line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ape_jax.pages.html import escape
from ape_jax.pages.style import COLOURS

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 440, 240, 56, 14, 28, 40
_NAMES = 110  # Room for names beside the lines, where there are several.
_MOST = 400  # Points a line; more than there are pixels would only make the page large.
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 5", "1 4")  # Beside colours, for a print in grey.


def chart(
    title: str,
    lines: Mapping[str, Points],
    *,
    y_title: str = "",
    marks: Mapping[str, float] | None = None,
    note: str = "",
) -> str:
    """One chart over training steps; points that are not finite are left out.

    Args:
      title: above it.
      lines: (step, y) in ascending order of steps, by name.
      y_title: what y is, and its unit.
      marks: levels that are drawn as dashed lines, by name.
      note: a sentence below it.

    Returns:
      An HTML figure; '' where there is nothing to draw.
    """
    finite = {name: _thinned(points) for name, points in lines.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return ""
    levels = marks or {}
    every = [point for points in finite.values() for point in points]
    xs = _ticks([x for x, _ in every], least=1)
    ys = _ticks([*(y for _, y in every), *levels.values()])
    area = _Area(xs, ys, _WIDTH - _RIGHT - (_NAMES if len(finite) > 1 else 0))
    parts = [_text(_LEFT, 14, title, "start", "name"), *area.axes(y_title)]
    for name, level in levels.items():
        y = area.y(level)
        parts.append(f'<path class="mark" d="M{_LEFT},{y:.1f}H{area.right}"/>')
        parts.append(_text(area.right - 2, y - 4, name, "end"))
    parts += _drawn(finite, area)
    label = escape(f"{title}, {y_title}" if y_title else title)
    below = f"<figcaption>{escape(note)}</figcaption>" if note else ""
    return (
        f'<figure class="chart"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>{below}</figure>'
    )


class _Area:
    """Where values stand in the drawing."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], right: int):
        self.xs, self.ys, self.right = xs, ys, right

    def x(self, value: float) -> float:
        share = (value - self.xs[0]) / (self.xs[-1] - self.xs[0])
        return _LEFT + share * (self.right - _LEFT)

    def y(self, value: float) -> float:
        share = (value - self.ys[0]) / (self.ys[-1] - self.ys[0])
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)

    def axes(self, y_title: str) -> list[str]:
        bottom, parts = _HEIGHT - _BOTTOM, []
        for value in self.ys:
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{_LEFT},{y:.1f}H{self.right}"/>')
            parts.append(_text(_LEFT - 6, y + 4, f"{value:.4g}", "end"))
        for value in self.xs:
            parts.append(_text(self.x(value), bottom + 16, f"{value:.6g}", "middle"))
        parts.append(f'<path class="axis" d="M{_LEFT},{_TOP}V{bottom}H{self.right}"/>')
        middle = (_LEFT + self.right) / 2
        parts.append(_text(middle, _HEIGHT - 6, "training step", "middle"))
        if y_title:
            turned = f'transform="rotate(-90 12 {(_TOP + bottom) / 2:.0f})"'
            parts.append(_text(12, (_TOP + bottom) / 2, y_title, "middle", extra=turned))
        return parts


def _drawn(lines: Mapping[str, Points], area: _Area) -> list[str]:
    parts, wanted = [], {}
    for index, (name, points) in enumerate(lines.items()):
        colour = f"var(--c{index % COLOURS})"
        path = " ".join(f"{area.x(x):.1f},{area.y(y):.1f}" for x, y in points)
        dash = _DASHES[index % len(_DASHES)]
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<polyline style="stroke:{colour}"{dashed} points="{path}"/>')
        if len(points) == 1:
            (x, y) = points[0]
            parts.append(
                f'<circle cx="{area.x(x):.1f}" cy="{area.y(y):.1f}" r="3.5" style="fill:{colour}"/>'
            )
        wanted[name] = area.y(points[-1][1]) + 4
    if len(lines) > 1:
        for name, y in _apart(wanted):
            colour = f"var(--c{list(lines).index(name) % COLOURS})"
            shown = name if len(name) <= 17 else f"{name[:16]}…"
            parts.append(_text(area.right + 6, y, shown, "start", extra=f'style="fill:{colour}"'))
    return parts


def _apart(wanted: Mapping[str, float], least: float = 13) -> list[tuple[str, float]]:
    """Heights of names, moved so far that none covers another."""
    placed: list[tuple[str, float]] = []
    for name, y in sorted(wanted.items(), key=lambda item: item[1]):
        placed.append((name, max(y, placed[-1][1] + least) if placed else y))
    moved, limit = [], float(_HEIGHT - _BOTTOM + 4)
    for name, y in reversed(placed):  # One that would fall below the drawing pushes others up.
        moved.append((name, min(y, limit)))
        limit = moved[-1][1] - least
    return moved[::-1]


def _ticks(values: Sequence[float], count: int = 5, least: float = 0.0) -> list[float]:
    """Round values that cover all of `values`, about `count`, at least `least` apart."""
    low, high = min(values), max(values)
    # Closer than a double can tell them apart, or nearly.
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300):
        low, high = low - (abs(low) or 1.0) * 0.5, high + (abs(high) or 1.0) * 0.5
    rough = max((high - low) / (count - 1), least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _thinned(points: Points) -> Points:
    kept = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(kept) <= _MOST:
        return kept
    return [kept[round(i * (len(kept) - 1) / (_MOST - 1))] for i in range(_MOST)]


def _text(x: float, y: float, text: str, anchor: str, kind: str = "", extra: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {where}{named}{' ' + extra if extra else ''}>{escape(text)}</text>"
