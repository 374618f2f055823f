"""A study over several domains: the same grid on other training pairs and other tests.

Each domain is a study of its own in `DIR/<domain>`. The tables are over all of them: a set that
several domains test on under one name is one table, of the runs of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ape_jax.errors import UserError
from ape_jax.studies.config import StudyConfig

Summary = Mapping[str, Any]


def configs(config: StudyConfig) -> dict[str, StudyConfig]:
    """The config of each domain's study, by name.

    Raises:
      UserError: `data.pairs` and `data.eval` are not those of the first domain.
    """
    _, pairs, sets = config.study.domains[0]
    if config.data.pairs != pairs or dict(config.data.eval) != dict(sets):
        raise UserError(
            "config.study.domains: each domain names its pairs and sets; write those of the first "
            f"as data.pairs and data.eval, {pairs!r} and {dict(sets)}, found "
            f"{config.data.pairs!r} and {dict(config.data.eval)}"
        )
    return {
        name: config.replace({"data.pairs": pairs, "data.eval": dict(sets), "study.domains": ()})
        for name, pairs, sets in config.study.domains
    }


def merge(summaries: Sequence[Summary], sizes: Sequence[int] = ()) -> dict[str, Any]:
    """The figures of all domains together: every run of a method stands in its list.

    Args:
      summaries: of the domains' studies.
      sizes: `study.sizes`; 0, all pairs, is called by the mean number of pairs.
    """
    merged: dict[str, Any] = {
        "methods": _rows([summary["methods"] for summary in summaries]),
        "images": {},
        "costs": {
            method: {
                key: float(np.mean([summary["costs"][method][key] for summary in summaries]))
                for key in cost
            }
            for method, cost in summaries[0]["costs"].items()
        },
    }
    for summary in summaries:
        for name, count in summary["images"].items():
            merged["images"][name] = merged["images"].get(name, 0) + count
    if sizes:
        merged["sizes"] = {}
        for size in sizes:  # Of a summary that is read back the order is another.
            names = [str(size or max(map(int, summary["sizes"]))) for summary in summaries]
            rows = [summary["sizes"][name] for name, summary in zip(names, summaries)]
            merged["sizes"][str(round(np.mean(list(map(int, names)))))] = _rows(rows)
        merged["methods"] = list(merged["sizes"].values())[-1]
    return merged


def _rows(domains: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Method -> set -> metric -> the values of all domains, one after the other."""
    rows: dict[str, Any] = {}
    for domain in domains:
        for method, sets in domain.items():
            for name, metrics in sets.items():
                found = rows.setdefault(method, {}).setdefault(name, {})
                for metric, values in metrics.items():
                    found[metric] = [*found.get(metric, ()), *values]
    return rows
