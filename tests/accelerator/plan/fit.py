"""Fits the planner's constants to what `plan/steps` has measured.

    python -m tests.accelerator.plan.fit build/accelerator/figures.jsonl [--write]

prints the chip's row of `ape_jax/planner/measured.json`, and the error that stays for each program;
`--write` puts the row there. The shares of products and of memory and a fixed time for each run of
a program are fitted by least squares of the logarithms of times, once as if all overlapped ("max")
and once as if nothing did ("sum"); what fits better is taken. Links are as they were: one GPU
has none.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import scipy.optimize

from ape_jax.planner import shares
from ape_jax.planner.shares import GUESSED, Shares

TABLE = pathlib.Path(shares.__file__).with_name("measured.json")
# Pulls what no program depends on to its guess, and moves all else by less than a thousandth.
_PULL = 1e-4
_NO_TIME = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed:
    """A program that was planned and timed.

    Attributes:
      name: its name.
      products, memory, links: seconds at the peak rates.
      seconds: measured.
    """

    name: str
    products: float
    memory: float
    links: float
    seconds: float

    def error(self, found: Shares) -> float:
        """Relative error of the time that these shares give."""
        return found.seconds(self.products, self.memory, self.links) / self.seconds - 1


def main() -> None:
    """Reads, fits and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=pathlib.Path)
    parser.add_argument("--write", action="store_true", help=f"to {TABLE.name}")
    flags = parser.parse_args()
    lines = [json.loads(line) for line in flags.figures.read_text().splitlines()]
    chip, source, programs = timed(lines)
    found = dataclasses.replace(fit(programs), source=source)
    for program in programs:
        print(f"{100 * program.error(found):+6.1f} %  {program.name}")
    print(found.line(chip))
    print(json.dumps({chip: dataclasses.asdict(found)}, indent=2))
    if flags.write:
        table = json.loads(TABLE.read_text()) | {chip: dataclasses.asdict(found)}
        TABLE.write_text(json.dumps(table, indent=2) + "\n")


def timed(lines: Sequence[Mapping[str, Any]]) -> tuple[str, str, list[Timed]]:
    """The chip, its source and the programs of the last run among these figures.

    Raises:
      SystemExit: where there is no such run.
    """
    chip, source, programs = "", "", {}
    for line in lines:
        if line["part"] != "plan/steps" or "left_out" in line:
            continue
        if line["name"] == "machine":
            chip, source, programs = line["beside"]["chip"], line["value"], {}
        elif "measured ms" in (found := line["beside"]):
            peaks = {k: found[f"{k} at peak, ms"] / 1e3 for k in ("products", "memory", "links")}
            name, seconds = line["name"], found["measured ms"] / 1e3
            programs[name] = Timed(name=name, seconds=seconds, **peaks)
    if not programs:
        raise SystemExit(
            "error: there are no figures of plan/steps; run launch/accelerator.sh plan"
        )
    return chip, source, list(programs.values())


def fit(programs: Sequence[Timed]) -> Shares:
    """The shares that give these times best; `source` is left to the caller."""
    columns = [[getattr(p, k) for p in programs] for k in ("products", "memory", "links")]
    peaks, seconds = np.array(columns), np.array([p.seconds for p in programs])
    guess = np.log([GUESSED.matrix, GUESSED.memory, _NO_TIME])

    def loss(x: np.ndarray, combine: str) -> float:
        matrix, memory, fixed = np.exp(x)
        parts = peaks / np.array([[matrix], [memory], [GUESSED.link]])
        made = fixed + (parts.max(axis=0) if combine == "max" else parts.sum(axis=0))
        pull = _PULL * np.square(x[:2] - guess[:2]).mean()
        return float(np.square(np.log(made / seconds)).mean() + pull)

    def solved(combine: str) -> tuple[float, np.ndarray]:
        starts = itertools.product((0.2, 0.6), (0.2, 0.8), (_NO_TIME, seconds.min() / 2))
        options = {"xatol": 1e-6, "fatol": 1e-12, "maxiter": 4000}
        found = [
            scipy.optimize.minimize(loss, np.log(x), combine, "Nelder-Mead", options=options)
            for x in starts
        ]
        best = min(found, key=lambda one: one.fun)
        return float(best.fun), np.exp(best.x)

    def made(combine: Any) -> tuple[float, Shares]:
        value, (matrix, memory, fixed) = solved(combine)
        known = Shares(
            matrix=float(matrix),
            memory=float(memory),
            fixed=float(fixed) if fixed > 10 * _NO_TIME else 0.0,
            combine=combine,
            programs=len(programs),
        )
        return value, known

    _, best = min(map(made, get_args(shares.Combine)), key=lambda one: one[0])
    return dataclasses.replace(best, error=max(abs(p.error(best)) for p in programs))


if __name__ == "__main__":
    main()
