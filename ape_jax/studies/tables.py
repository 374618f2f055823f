"""The results of a study as Markdown tables and plots."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from ape_jax.errors import UserError, install
from ape_jax.studies.methods import METHODS
from ape_jax.terminal import tables as report

# Okabe and Ito's, which people with any kind of colour blindness can tell apart, black for yellow;
# markers and dashes beside them, for a print in grey.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
_STYLES = ("-", "--", ":", "-.")
_GREY = "#8a8a8a"

Rows = Mapping[str, Mapping[str, Mapping[str, list[float]]]]


def tables(summary: Mapping[str, Any]) -> str:
    """Makes a Markdown table for each evaluation set: mean and standard deviation over seeds.

    With several sizes, the first tables are R@10 by size, one a set; those of every size follow.
    The last table says what the runs cost.
    """
    images, sizes = summary["images"], summary.get("sizes")
    if sizes is not None:  # A file holds them by their first digit.
        sizes = dict(sorted(sizes.items(), key=lambda item: int(item[0])))
    differences = difference_tables(summary)
    if sizes is None:
        parts = [_table(name, count, summary["methods"]) for name, count in images.items()]
        return "\n\n".join([*parts, *differences, _cost_table(summary["costs"])])
    parts = [*(_by_size(name, count, sizes) for name, count in images.items()), *differences]
    for size, rows in sizes.items():
        for name, count in images.items():
            parts.append(f"{size} training pairs\n\n{_table(name, count, rows)}")
    return "\n\n".join([*parts, _cost_table(summary["costs"])])


def difference_tables(summary: Mapping[str, Any]) -> list[str]:
    """Makes a table for each set: what the reference gains over each other method, by size.

    Args:
      summary: of a study; without `study.reference` there are none.
    """
    found = summary.get("differences")
    if found is None:
        return []
    title, sizes = METHODS[found["reference"]].title, found["sizes"]
    sizes = dict(sorted(sizes.items(), key=lambda item: 0 if item[0] == "all" else int(item[0])))
    tables = []
    for name in next(iter(sizes.values())):
        head = [
            f"{name}: R@10, mean of both ways: {title} minus the method in the row",
            *("all pairs" if size == "all" else f"{size} pairs" for size in sizes),
        ]
        rows = [
            [METHODS[method].title, *(_interval(*of[name][method]) for of in sizes.values())]
            for method in next(iter(sizes.values()))[name]
        ]
        tables.append(report.markdown(head, rows))
    level = round(100 * found["level"])
    note = f"Differences in points, with {level} % intervals over test images and seeds."
    return [*tables, note]


def _interval(value: float, low: float, high: float) -> str:
    text = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def require_matplotlib() -> None:
    """Checks that plots can be drawn, before the study runs.

    Raises:
      UserError: where matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"--plots: needs matplotlib; run {install('plots')}")


def plots(summary: Mapping[str, Any], directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws R@10, the mean of both ways, for each evaluation set: lines by size, else bars.

    Args:
      summary: the summary of a study.
      directory: folder of the plots, `<set>.png`.

    Returns:
      The files that were written.

    Raises:
      UserError: where matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure  # Without pyplot: no window, no state.

    files = []
    for name, count in summary["images"].items():
        # Beside lines, and not over them, stands what they are.
        figure = Figure(figsize=(10 if "sizes" in summary else 7, 4.5), layout="constrained")
        axes = figure.subplots()
        if "sizes" in summary:
            _draw_lines(axes, name, summary["sizes"])
        else:
            _draw_bars(axes, name, summary["methods"])
        axes.set_title(f"{name} ({count} images)")
        files.append(directory / f"{name}.png")
        figure.savefig(files[-1], dpi=150)
    return files


def recall(rows: Rows, method: str, name: str) -> Float[np.ndarray, "s"]:
    """R@10 by seed, the mean of both ways, in percent."""
    found = rows[method][name]
    return 50 * (np.asarray(found["i2t_r10"]) + np.asarray(found["t2i_r10"]))


def _table(name: str, images: int, rows: Rows) -> str:
    head = [f"{name} ({images} images)", *map(report.metric_title, report.RETRIEVAL)]
    body = [
        [METHODS[method].title, *(_cell(m, sets[name][m]) for m in report.RETRIEVAL)]
        for method, sets in rows.items()
    ]
    return report.markdown(head, body)


def _cost_table(costs: Mapping[str, Mapping[str, float]]) -> str:
    head = ["a run", "trained parameters", "of all, %", "seconds"]
    body = [
        [METHODS[m].title, f"{c['trained']:,.0f}", f"{100 * c['share']:.2f}", f"{c['seconds']:.0f}"]
        for m, c in costs.items()
    ]
    return report.markdown(head, body)


def _by_size(name: str, images: int, sizes: Mapping[str, Rows]) -> str:
    head = [f"{name} ({images} images): R@10, mean of both ways", *(f"{s} pairs" for s in sizes)]
    methods = next(iter(sizes.values()))
    body = [
        [
            METHODS[m].title,
            *(_cell("r10", list(recall(rows, m, name) / 100)) for rows in sizes.values()),
        ]
        for m in methods
    ]
    return report.markdown(head, body)


def _cell(metric: str, values: list[float]) -> str:
    text = report.cell(metric, float(np.mean(values)))
    if len(values) == 1:
        return text
    return f"{text} ± {report.cell(metric, float(np.std(values, ddof=1)))}"


def _draw_lines(axes: Any, name: str, sizes: Mapping[str, Rows]) -> None:
    pairs = sorted(sizes, key=int)
    for index, method in enumerate(_best_first(sizes[pairs[-1]], name)):
        found = [recall(sizes[size], method, name) for size in pairs]
        axes.errorbar(
            [int(size) for size in pairs],
            [values.mean() for values in found],
            [_spread(values) for values in found],
            label=METHODS[method].title,
            color=_COLOURS[index % len(_COLOURS)],
            linestyle=_STYLES[index // len(_COLOURS) % len(_STYLES)],
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=4,
            elinewidth=0.8,
            capsize=2,
        )
    axes.set(xscale="log", xlabel="training pairs", ylabel="R@10, mean of both ways (%)")
    axes.set_xticks([int(size) for size in pairs], [f"{int(size):,}" for size in pairs])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    # In the order of the lines at their right end, beside which the names stand.
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_bars(axes: Any, name: str, rows: Rows) -> None:
    methods = _best_first(rows, name)
    found = [recall(rows, method, name) for method in methods]
    bars = axes.barh(
        [METHODS[method].title for method in methods],
        [values.mean() for values in found],
        xerr=[_spread(values) for values in found],
        color=[_GREY if METHODS[method].overrides is None else _COLOURS[0] for method in methods],
        capsize=2,
    )
    axes.bar_label(bars, [f"{values.mean():.1f}" for values in found], padding=4, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("R@10, mean of both ways (%)")


def _best_first(rows: Rows, name: str) -> list[str]:
    """The methods by their mean, the best first."""
    return sorted(rows, key=lambda method: -recall(rows, method, name).mean())


def _spread(values: Float[np.ndarray, "s"]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
