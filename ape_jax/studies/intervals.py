"""The difference of every method from a study's reference, with intervals, from its runs' ranks."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ape_jax.runs.directory import ranks_file
from ape_jax.studies import bootstrap, cells
from ape_jax.studies.config import StudyConfig
from ape_jax.studies.methods import METHODS

Runs = Callable[[str], Sequence[pathlib.Path]]
"""method -> the work directories of its runs, one a seed."""


def of_study(
    config: StudyConfig, places: Sequence[pathlib.Path], names: Sequence[str]
) -> dict[str, Any]:
    """Computes what `study.reference` gains over each other method, in each size.

    Args:
      config: of the study, or of one over domains.
      places: the directories of its domains; of a study without, its own.
      names: of the sizes, in the order of `study.sizes`.
    """
    methods = [name for name in config.study.methods if METHODS[name].overrides is not None]
    found = {
        shown: summarise(
            [partial(cells.directories_of, config, path, size=size) for path in places],
            methods,
            config.study.reference,
        )
        for size, shown in zip(config.study.sizes or (0,), names, strict=True)
    }
    return {"reference": config.study.reference, "level": bootstrap.LEVEL, "sizes": found}


def summarise(
    domains: Sequence[Runs], methods: Sequence[str], reference: str
) -> dict[str, dict[str, list[float]]]:
    """Computes the differences of one size: set -> method -> [reference minus it, low, high].

    Args:
      domains: the runs of each domain.
      methods: those that are runs, with the reference among them.
      reference: the method that the others are compared with.

    Raises:
      UserError: the ranks of a run are missing or damaged.
    """
    found = [{name: _hits(runs_of(name)) for name in methods} for runs_of in domains]
    sets = dict.fromkeys(name for domain in found for name in domain[reference])
    summary = {}
    for name in sets:
        there = [domain for domain in found if name in domain[reference]]
        hits = {method: [domain[method][name] for domain in there] for method in methods}
        summary[name] = {
            method: [one.value, one.low, one.high]
            for method, one in bootstrap.differences(hits, reference).items()
        }
    return summary


def _hits(places: Sequence[pathlib.Path]) -> Mapping[str, bootstrap.Hits]:
    """The hits of a method's runs, by set."""
    runs: list[dict[str, Any]] = [ranks_file.read(place) for place in places]
    hits = {}
    for name, (ids, first) in runs[0].items():
        ranks = [run[name][1] for run in runs]
        hits[name] = bootstrap.hits_of(ids, [(r.i2t, r.t2i) for r in ranks], first.image_index)
    return hits
