"""Checks and measures ape_jax on this machine's GPU, TPU or processor.

    launch/accelerator.sh [--device gpu] [--small] [--minutes 9] [--out DIR] [PART ...]

Each part runs in a process of its own, for as many minutes at most. A figure is a JSON line on
standard output and in DIR/figures.jsonl; DIR/log has what else the parts print, DIR/table.md all
figures in a table, which is printed at the end as well. Exit code 1 says that something is not
right, or that a part of `correct` did not come to its end; speeds decide nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any, TextIO

from tests.accelerator import figures as figures_lib
from tests.accelerator import parts as parts_lib
from tests.accelerator.settings import PLATFORMS, Settings, environment

# A part that sees its time coming may still end by itself.
_GRACE = 5.0


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
    log.write(f"== {name}\n")
    log.flush()
    child = subprocess.Popen(
        here,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment(flags.device, parts_lib.ENVIRONMENT.get(name)),
        start_new_session=True,
    )
    lines: list[dict[str, Any]] = []

    def keep(line: dict[str, Any]) -> None:
        print(text := json.dumps(line), flush=True)
        kept.write(text + "\n")
        kept.flush()
        lines.append(line)

    with _ended_after(child, 60 * flags.minutes + _GRACE) as late:
        for line in child.stdout or ():
            if (found := _figure(line)) is None:  # A library's own words.
                log.write(line)
            else:
                keep(found)
        code = child.wait()
    if late.is_set():
        keep(_broken(name, f"was ended after {flags.minutes:g} minutes"))
    elif code:  # The child could not say so itself.
        keep(_broken(name, f"ended with {code}"))
    return lines


@contextlib.contextmanager
def _ended_after(child: subprocess.Popen[str], seconds: float) -> Iterator[threading.Event]:
    """Ends a process, and those it has started, after a time or when this one stops.

    Yields:
      What is set where the time was over.
    """
    late = threading.Event()

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    def end_late() -> None:
        late.set()
        end()

    timer = threading.Timer(seconds, end_late)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        end()
        child.wait()


def _figure(line: str) -> dict[str, Any] | None:
    """The figure of a line, None for other words."""
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and {"part", "name", "value"} <= set(found):
            return found
    return None


def one(flags: Any) -> int:
    """Runs one part here; what stops it is one more line."""
    started = time.monotonic()
    deadline = started + 60 * flags.minutes
    settings = Settings(device=flags.device, small=flags.small, out=flags.out, deadline=deadline)
    figures = figures_lib.Figures(part=flags.one)
    try:
        figures.measured(figures_lib.MACHINE, machine(), "")
        parts_lib.load(flags.one)(settings, figures)
        figures.measured("time of the part", time.monotonic() - started, "s")
    except Exception as error:
        traceback.print_exc()
        said = " ".join(f"{type(error).__name__}: {error}".split())
        print(json.dumps(_broken(flags.one, said[:500])), flush=True)
    return 0


def machine() -> str:
    """The device and the versions that a figure is of."""
    import jax

    devices = jax.devices()
    words = [f"{len(devices)} x {devices[0].device_kind}", f"Python {platform.python_version()}"]
    for name in ("jax", "jaxlib", "flax", "torch", "transformers"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            words.append(f"{name} {metadata.version(name)}")
    if "cuda" in os.environ.get("JAX_PLATFORMS", ""):
        words.append(f"driver {_driver()}")
    return ", ".join(words)


def _driver() -> str:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.split("\n")[0]
    return "unknown"


def _broken(name: str, why: str) -> dict[str, Any]:
    """A line for a part that did not come to its end: wrong if it is to show what is right."""
    line = {"part": name, "name": "came to its end", "value": why, "unit": ""}
    return {**line, "right": False} if parts_lib.decides(name) else {**line, "left_out": "no"}


if __name__ == "__main__":
    sys.exit(main())
