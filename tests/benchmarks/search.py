"""Learning rate and temperature of every trained method of a study, on its validation set.

    python tests/benchmarks/search.py --bench icons --size 16384 [--lrs 1e-3,3e-3]
        [--temperatures 1,5] [--methods a,b] [--seeds 1] --workdir DIR [--config.KEY=VALUE ...]

runs `study:BENCH,validation` with each learning rate and each factor on the learning
rate of the temperature, and prints a Markdown table of R@10 (mean of both directions and of the
sets), one JSON line, and the winners as `study.lrs` and `study.set` take them. What DIR holds
already is not run again. Of `--bench tuned` only the rates are searched: its rows have factors of
their own, on heads and temperature.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib

import numpy as np

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.studies import study
from ape_jax.studies import tables as study_tables
from ape_jax.studies.config import StudyConfig
from ape_jax.studies.methods import METHODS
from ape_jax.terminal import tables as report

Point = tuple[float, float]  # Learning rate, factor of the temperature's.


def main() -> None:
    """Runs every point and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", default="", choices=("", "icons", "tuned"))
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--lrs", default="1e-3,3e-3")
    parser.add_argument("--temperatures", default="1,5")
    parser.add_argument("--methods", default="")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    flags, overrides = parser.parse_known_args()
    rates = [float(x) for x in flags.lrs.split(",")]
    temperatures = "1" if flags.bench == "tuned" else flags.temperatures
    factors = [float(x) for x in temperatures.split(",")]
    found = {p: measure(flags, overrides, p) for p in itertools.product(rates, factors)}
    best = {m: max(found, key=lambda p: found[p][m]) for m in next(iter(found.values()))}
    print(table(found, best))
    rows = [{"lr": p[0], "temperature": p[1], "r10": r10} for p, r10 in found.items()]
    print(json.dumps({"benchmark": "search", "bench": flags.bench, "rows": rows}))
    print("study.lrs", tuple((m, p[0]) for m, p in best.items()))
    if flags.bench != "tuned":
        mults = (((m, "optim.lr_mults", ((".*log_scale", p[1]),))) for m, p in best.items())
        print("study.set", tuple(mults))


def measure(flags: argparse.Namespace, overrides: list[str], point: Point) -> dict[str, float]:
    """R@10 of each method at one point."""
    config = recipes.read("study:" + ",".join(filter(None, (flags.bench, "validation"))))
    runs = (m for m in config.study.methods if METHODS[m].overrides is not None)
    trained = [m for m in runs if METHODS[m].seeded]
    chosen = flags.methods.split(",") if flags.methods else trained
    config.study.methods = tuple(m for m in config.study.methods if m in chosen)
    config.study.lrs = tuple((m, point[0]) for m in config.study.methods)
    config.study.seeds, config.study.sizes = flags.seeds, (flags.size,)
    if flags.bench != "tuned":
        config.study.set += tuple(
            (m, "optim.lr_mults", ((".*log_scale", point[1]),)) for m in config.study.methods
        )
    pairs = (text.removeprefix("--config.").split("=", 1) for text in overrides)
    config_lib.override(config, dict(pairs))
    place = flags.workdir / f"lr{point[0]:g}-t{point[1]:g}"
    rows = study.run_study(config_lib.resolve(config, StudyConfig), place)["methods"]
    return {
        m: float(np.mean([study_tables.recall(rows, m, name).mean() for name in sets]))
        for m, sets in rows.items()
    }


def table(found: dict[Point, dict[str, float]], best: dict[str, Point]) -> str:
    """A row a method, a column a point; the best in bold."""
    head = ["R@10, %", *(f"lr {lr:g}, temperature x {t:g}" for lr, t in found)]
    body = [
        [METHODS[m].title]
        + [f"**{r[m]:.1f}**" if p == best[m] else f"{r[m]:.1f}" for p, r in found.items()]
        for m in best
    ]
    return report.markdown(head, body)


if __name__ == "__main__":
    main()
