"""Checks and measures ape_jax on this machine's GPU, TPU or processor.

    launch/accelerator.sh [--device gpu] [--small] [--minutes 9] [--out DIR] [PART ...]

Each part runs in a process of its own, for as many minutes at most. A figure is a JSON line on
standard output and in DIR/figures.jsonl; DIR/log has what else the parts print, DIR/table.md all
figures in a table, which is printed at the end as well. Exit code 1 says that something is not
right, or that a part of `correct` did not come to its end; speeds decide nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any, TextIO

from tests.accelerator import figures as figures_lib
from tests.accelerator import parts as parts_lib
from tests.accelerator.settings import Settings

PLATFORMS = {"gpu": "cuda", "tpu": "tpu", "cpu": "cpu"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the parts that are named, and returns the exit code."""
    flags = parser().parse_args(argv)
    if flags.one:
        return one(flags)
    try:
        names = parts_lib.named(flags.parts)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if flags.list:
        print("\n".join(names))
        return 0
    flags.out.mkdir(parents=True, exist_ok=True)
    with open(flags.out / "log", "a") as log, open(flags.out / "figures.jsonl", "a") as kept:
        lines = [line for name in names for line in process(name, flags, log, kept)]
    made = figures_lib.table(lines)
    (flags.out / "table.md").write_text(made + "\n")
    print(made, file=sys.stderr)
    for name in (bad := figures_lib.wrong(lines)):
        print(f"not right: {name}", file=sys.stderr)
    return 1 if bad else 0


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command line."""
    made = argparse.ArgumentParser("launch/accelerator.sh", description=__doc__.split("\n")[0])
    made.add_argument("parts", nargs="*", metavar="PART", help="or its group; all by default")
    made.add_argument("--device", choices=PLATFORMS, default="gpu")
    made.add_argument("--small", action="store_true", help="sizes for a processor")
    made.add_argument("--minutes", type=float, default=9.0, help="for a part, at most")
    made.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/accelerator"))
    made.add_argument("--list", action="store_true", help="print the parts and end")
    made.add_argument("--one", metavar="PART", help=argparse.SUPPRESS)
    return made


def process(name: str, flags: Any, log: TextIO, kept: TextIO) -> list[dict[str, Any]]:
    """Runs one part in a process of its own, and gives its lines as they were printed."""
    here = [sys.executable, "-m", "tests.accelerator", "--one", name, "--device", flags.device]
    here += ["--minutes", str(flags.minutes), "--out", str(flags.out)]
    here += ["--small"] if flags.small else []
    environment = {**os.environ, "JAX_PLATFORMS": PLATFORMS[flags.device]}
    # torch runs beside JAX, which would otherwise take three quarters of the memory.
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    log.write(f"== {name}\n")
    log.flush()
    started = time.monotonic()
    child = subprocess.Popen(here, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    ended = threading.Timer(60 * flags.minutes + 5, child.kill)
    ended.start()
    lines = []
    for line in child.stdout or ():
        if not line.startswith("{"):  # A library's own words.
            log.write(line)
            continue
        print(line, end="", flush=True)
        kept.write(line)
        kept.flush()
        lines.append(json.loads(line))
    code = child.wait()
    ended.cancel()
    if code:  # The child could not say so itself.
        lines.append(_broken(name, f"ended with {code} after {time.monotonic() - started:.0f} s"))
        print(json.dumps(lines[-1]), flush=True)
    return lines


def one(flags: Any) -> int:
    """Runs one part here; what stops it is one more line."""
    deadline = time.monotonic() + 60 * flags.minutes
    settings = Settings(device=flags.device, small=flags.small, out=flags.out, deadline=deadline)
    try:
        import jax

        found = jax.devices()[0]
        machine = {"platform": found.platform, "kind": found.device_kind, "jax": jax.__version__}
        print(f"{flags.one}: {machine}", file=sys.stderr, flush=True)
        parts_lib.load(flags.one)(settings, figures_lib.Figures(part=flags.one))
    except Exception as error:
        traceback.print_exc()
        said = " ".join(f"{type(error).__name__}: {error}".split())
        print(json.dumps(_broken(flags.one, said[:500])), flush=True)
    return 0


def _broken(name: str, why: str) -> dict[str, Any]:
    """A line for a part that did not come to its end: wrong if it is to show what is right."""
    line = {"part": name, "name": "came to its end", "value": why, "unit": ""}
    return {**line, "right": False} if name.startswith("correct/") else {**line, "left_out": "no"}


if __name__ == "__main__":
    sys.exit(main())
