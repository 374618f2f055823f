"""Tables for the terminal and for Markdown, from flat `eval/<name>/<metric>` dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RETRIEVAL = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "median_rank_t2i")


def retrieval_table(summary: Mapping[str, Any]) -> str:
    """Makes a table of evaluation sets: recalls in percent, and the median rank.

    Below each set stands what a random order would have, where that is known.

    Args:
      summary: metrics `eval/<name>/i2t_r1` and `chance/<name>/i2t_r1` and so on; of `languages`
        those that are `unseen` are marked, other keys are ignored.
    """
    names = sorted({key.split("/")[1] for key in summary if key.startswith("eval/")})
    unseen, rows = summary.get("languages", {}).get("unseen", ()), []
    for name in names:
        _, joint, language = name.rpartition(":")
        shown = f"{name} (not trained on)" if joint and language in unseen else name
        for kind, title in (("eval", shown), ("chance", "chance")):
            values = [summary.get(f"{kind}/{name}/{metric}") for metric in RETRIEVAL]
            if None not in values:
                rows.append([title, *(cell(m, v) for m, v in zip(RETRIEVAL, values))])
    return markdown(["retrieval", *(metric_title(m) for m in RETRIEVAL)], rows)


def metric_title(metric: str) -> str:
    """Title of a metric.

    Example:
      >>> metric_title("i2t_r10")
      'i2t R@10'
    """
    if metric == "median_rank_t2i":
        return "t2i median rank"
    direction, recall = metric.split("_r")
    return f"{direction} R@{recall}"


def cell(metric: str, value: float) -> str:
    """Formats a rate in percent, a rank as it is."""
    return f"{value:.1f}" if "rank" in metric else f"{100 * value:.1f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Makes a Markdown table with columns aligned for a terminal.

    Example:
      >>> print(markdown(["name", "R@1"], [["emoji", "40.5"]]))
      | name  |  R@1 |
      |-------|-----:|
      | emoji | 40.5 |

    Args:
      head: titles of the columns; all but the first are aligned to the right.
      rows: cells of each row.
    """
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        return "| " + " | ".join([first, *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])
