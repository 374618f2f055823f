"""What the planner says of training steps and encoding, beside what they take here.

The plans are made in another process, as `ape-jax plan` makes them. `fit.py` fits the planner's
constants to what this part prints.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax

from ape_jax.planner import gpus
from tests.accelerator import clock
from tests.accelerator.fast import compare, peer
from tests.accelerator.figures import Figures, say
from tests.accelerator.plan import cases, here
from tests.accelerator.settings import Settings

MIB = 2**20
PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")


def run(settings: Settings, figures: Figures) -> None:
    """Prints predicted by measured times, and what both are made of."""
    chip = chip_of(jax.devices()[0].device_kind) if settings.device == "gpu" else "h100"
    if not chip:
        known = ", ".join(gpus.GPUS)
        figures.left_out("plans", f"the planner has no such chip as this one; it has {known}")
        return
    if not any(map(importlib.util.find_spec, PLUGINS)):
        figures.left_out("plans", "JAX's CUDA plugin, which compiles them, is not there")
        return
    machine = f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {datetime.date.today()}"
    figures.measured("machine", machine, "", beside={"chip": chip})
    for planned in _plans(settings, chip):
        name = planned.pop("case")
        if not planned.pop("fits"):
            figures.left_out(name, planned["reason"])
        elif compare.has_time(settings, figures, name, seconds=20):
            _measure(settings, figures, name, planned)


def chip_of(kind: str) -> str:
    """The planner's name of a device's kind, '' where it has none."""
    for name, gpu in gpus.GPUS.items():
        if gpu.title == kind:
            return name
    words = kind.replace("-", " ").lower().split()
    return next((name for name in gpus.GPUS if name in words), "")


def _plans(settings: Settings, chip: str) -> Iterator[dict[str, Any]]:
    """They come while others are made: this process measures in the meantime."""
    command = [sys.executable, "-m", "tests.accelerator.plan.predicted", "--chip", chip]
    command += ["--out", str(settings.out), *(["--small"] if settings.small else [])]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            for line in child.stdout or ():
                if line.startswith("{"):
                    yield json.loads(line)
        finally:
            child.kill()
    if child.returncode > 0:
        raise RuntimeError(f"planning ended with {child.returncode}; the log says why")


def _measure(settings: Settings, figures: Figures, name: str, planned: dict[str, Any]) -> None:
    say(name)
    case = cases.of(settings)[name]
    config = case.config(settings)
    made: list[here.Running] = []
    make = here.step(config) if case.part == "step" else here.encoders(config)[case.part]
    before = _held()
    if not compare.fits(figures, name, lambda: made.append(make())):
        return
    if not compare.fits(figures, name, made[0]):
        return
    rounds = settings.pick(7, 1)
    seconds = clock.seconds({name: made[0]}, rounds=rounds, at_least=0.02)[name]
    beside = {
        "predicted ms": 1e3 * planned["seconds"],
        "measured ms": 1e3 * seconds,
        "products at peak, ms": 1e3 * planned["products"],
        "memory at peak, ms": 1e3 * planned["memory"],
        "links at peak, ms": 1e3 * planned["links"],
        "predicted MiB": planned["peak"] / MIB,
        "MiB by the compiler here": made[0].peak / MIB,
    }
    if _held() > before:  # The most so far; what took less than an earlier program is not seen.
        beside["MiB held at most"] = _held() / MIB
    figures.measured(name, planned["seconds"] / seconds, "predicted by measured", beside=beside)
    made.clear()
    peer.free()


def _held() -> int:
    """Bytes that the device has held at most since the start, 0 where it does not say."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
