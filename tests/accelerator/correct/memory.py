"""Memory of a training step: what the device has counted, beside what a plan says of it."""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax

from ape_jax.planner import estimate
from tests.accelerator.figures import Figures, say
from tests.accelerator.plan import here
from tests.accelerator.settings import Settings, environment
from tests.benchmarks import parity

# Of the plan. The compiler's figure is exact but for what the allocator rounds up, and what
# libraries of products and attention take beside it; a plan that is off by more is of no use.
OFF = 0.10
GIB = 2**30
# Name: (recipe, pairs of a step, the same in small, further keys).
CASES: Mapping[str, tuple[str, int, int, Mapping[str, Any]]] = {
    "APE, head of 4 x 1024": ("ape", 16384, 16, {"text.head.depth": 4, "text.head.width": 1024}),
    "LilT, ViT-B/16 + BERT-base": ("lilt", 256, 4, {}),
}


def run(settings: Settings, figures: Figures) -> None:
    """Prints how far a step's peak is from the plan's, each step in a process of its own."""
    for name, (_, full, small, _) in CASES.items():
        say(f"{name}, {settings.left():.0f} s left")
        found = _in_a_process(name, settings)
        title = f"{name}, {settings.pick(full, small)} pairs"
        planned = found["planned"] / GIB
        if found["peak"] is None:
            figures.measured(f"{title}, planned", planned, "GiB")
            figures.left_out(title, "the device does not count its memory")
            continue
        beside = {
            "GiB planned": planned,
            "GiB counted": found["peak"] / GIB,
            "GiB before the step": found["before"] / GIB,
        }
        off = abs(found["peak"] / found["planned"] - 1)
        figures.checked(title, off, bound=OFF, unit="of the plan", beside=beside)


def _in_a_process(name: str, settings: Settings) -> dict[str, Any]:
    """A device remembers the highest peak of a process, and nothing resets it."""
    command = [sys.executable, "-m", __name__, name, "--device", settings.device]
    command += ["--out", str(settings.out), *(["--small"] if settings.small else [])]
    done = subprocess.run(
        command, env=environment(settings.device), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Runs one step, and prints its peak by the plan and by the device."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("--device")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=pathlib.Path)
    flags = parser.parse_args()
    deadline = time.monotonic() + 540
    settings = Settings(device=flags.device, small=flags.small, out=flags.out, deadline=deadline)
    recipe, full, small, keys = CASES[flags.case]
    batch = settings.pick(full, small)
    config = here.config(settings, recipe, **{"train.batch": batch, **keys})
    made = estimate.assemble(config, here.Here())
    program = estimate.step_program(config, here.CAPTIONS, made)
    # Compiled before anything lies on the device: what is tried out for it stays below the step.
    options = parity.QUICK if settings.device == "cpu" else None
    compiled = program.traced.lower().compile(options)
    arguments = here.arrays(program.arguments)
    before = _peak(jax.block_until_ready(arguments))
    after = _peak(jax.block_until_ready(compiled(*arguments)))
    planned = compiled.memory_analysis().peak_memory_in_bytes
    print(json.dumps({"planned": planned, "before": before, "peak": after}))


def _peak(_: Any) -> int | None:
    """Bytes at the worst moment of this process, None where nobody counts them."""
    stats = jax.devices()[0].memory_stats()
    return None if stats is None else stats.get("peak_bytes_in_use")


if __name__ == "__main__":
    main()
