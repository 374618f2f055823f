"""Training on features that lie on the device: pairs a second, and what the host costs a step.

The contestants are those of tests/benchmarks/epoch.py, on features of the demo's shape.
"""

from __future__ import annotations

import argparse

from tests.accelerator.fast import compare
from tests.accelerator.figures import Figures
from tests.accelerator.settings import Settings
from tests.benchmarks import epoch

# Of the head, and pairs of a batch.
CASES = ((2, 1024, 1024), (4, 1024, 4096))


def run(settings: Settings, figures: Figures) -> None:
    """Prints both sizes."""
    for depth, width, batch in CASES[:1] if settings.small else CASES:
        figure = f"{depth} x {width}, {batch:,} pairs a step"
        if compare.has_time(settings, figures, figure, seconds=90):
            _epochs(settings, figures, figure, depth, width, batch)


def _epochs(
    settings: Settings, figures: Figures, figure: str, depth: int, width: int, batch: int
) -> None:
    args = argparse.Namespace(
        pairs=settings.pick(65_536, 64),
        batch=settings.pick(batch, 8),
        width=settings.pick(width, 16),
        depth=depth,
        tokens=settings.pick(13, 4),
        steps=settings.pick(64, 4),
        rounds=settings.pick(7, 1),
    )
    found = epoch.report(args, *epoch.measure(args))
    rates = found["pairs_a_second"]
    beside = {name: rates[name] for name in ("device", "streamed", "stepwise", "plain")}
    beside["ms a step"] = found["milliseconds_a_step"]["resident"]
    beside["over the device alone"] = found["over_device"]["resident"]
    figures.measured(f"{figure}, resident", float(rates["resident"]), "pairs/s", beside=beside)
    shares = {name: found["host_share"][name] for name in ("streamed", "stepwise", "sampling")}
    value = 100 * found["host_share"]["resident"]
    figures.measured(f"{figure}, host", value, "% of a step", beside=shares)
