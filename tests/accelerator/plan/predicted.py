"""Plans of the cases for a chip, a JSON line each, in a process that uses no accelerator.

    python -m tests.accelerator.plan.predicted --chip h100 [--small] --out DIR

`products`, `memory` and `links` are seconds at the chip's peak rates; `seconds` is the plan's.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
from typing import Any

from ape_jax.planner import estimate, targets
from ape_jax.planner.estimate import Program
from tests.accelerator.plan import cases, here
from tests.accelerator.settings import Settings


def main() -> None:
    """Plans all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chip", required=True, help="a GPU of the planner")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    flags = parser.parse_args()
    targets.leave_this_machine()
    settings = Settings(device="cpu", small=flags.small, out=flags.out, deadline=math.inf)
    for name, case in cases.of(settings).items():
        print(json.dumps({"case": name, **plan(case, settings, flags.chip)}), flush=True)


def plan(case: cases.Case, settings: Settings, chip: str) -> dict[str, Any]:
    """One of them."""
    where, config = targets.parse(f"{chip}:1"), case.config(settings)
    made = estimate.assemble(config, where)
    program: Program
    if case.part == "step":
        program = estimate.step_program(config, here.CAPTIONS, made)
    else:
        program = estimate.encoding_programs(config, here.CAPTIONS, made)[case.part]
    cost = estimate.cost(program, where)
    if not cost.fits:
        return {"fits": False, "reason": cost.reason}
    times = estimate.peak_seconds(
        where, cost.passes, cost.memory_traffic, sum(cost.traffic.values())
    )
    products, memory, links = times
    rates = {"products": products, "memory": memory, "links": links}
    return {"fits": True, "peak": cost.peak, "seconds": cost.seconds, "flops": cost.flops, **rates}


if __name__ == "__main__":
    main()
