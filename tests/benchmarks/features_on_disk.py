"""Training from features on disk: memory, start and steps at millions of pairs.

    python tests/benchmarks/features_on_disk.py [--pairs 2000000] [--folder DIR]
        [--parts runs,closed,compare]

makes own features of so many pairs and of a quarter of them (bf16; an image of 384, a caption of 13
tokens of 384: about 21 GB for 2 million), trains the APE head on each with the ordinary command,
and prints one JSON line; progress goes to stderr. Features are removed at the end; with `--folder`
they stay there and are found again.

runs       each size twice, in processes of their own: seconds from the start of the process until
           the first step is on record (the first start looks at all features once), the largest
           anonymous memory of the process while it trained, in MiB (`smaps_rollup`), and the
           seconds of the loop
closed     CCA and ridge on the larger size, by the ordinary command: seconds, and the largest
           anonymous memory
growth     anonymous memory of the larger size less that of the smaller one, second starts
compare    one process, a set that fits into memory (`--fits`): steps from disk and from memory in
           turn, with warm pages; milliseconds a step, their ratio round by round, and whether all
           losses are the same bits
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from ape_jax import config as config_lib
from ape_jax.training.input import opened

ROOT = pathlib.Path(__file__).parent.parent.parent
WIDTH, TOKENS = 384, 13
SHARD = 20_000  # Pairs of a shard.


def main() -> None:
    """Makes the features, measures and prints."""
    args = parse()
    if args.compare:
        print(json.dumps(compare(args, pathlib.Path(args.compare))))
        return
    parts = args.parts.split(",")
    line: dict[str, Any] = {"benchmark": "features_on_disk", "batch": args.batch}
    with tempfile.TemporaryDirectory(prefix="ape_jax_disk_") as name:
        scratch = pathlib.Path(name)
        kept = pathlib.Path(args.folder or scratch)
        if "runs" in parts:
            line["runs"] = runs(args, kept, scratch)
            memory = [r["anonymous_mib"] for r in line["runs"] if r["start"] == "second"]
            line["growth_mib"] = round(memory[1] - memory[0], 1)
        if "closed" in parts:
            line["closed"] = closed(args, kept, scratch)
        if "compare" in parts:
            folder = make(kept / f"pairs-{args.fits}", args.fits)
            flags = [f"--{name}={getattr(args, name)}" for name in ("batch", "width", "rounds")]
            command = [sys.executable, __file__, f"--compare={folder}", *flags]
            done = subprocess.run(
                command, env=environment(args), stdout=subprocess.PIPE, check=True
            )
            line["compare"] = json.loads(done.stdout)
    print(json.dumps(line))


def runs(
    args: argparse.Namespace, kept: pathlib.Path, scratch: pathlib.Path
) -> list[dict[str, Any]]:
    """First and second starts of training on both sizes."""
    rows = []
    for pairs in (args.pairs // 4, args.pairs):
        folder = make(kept / f"pairs-{pairs}", pairs)
        for start in ("first", "second"):
            workdir = scratch / f"run-{pairs}-{start}"
            rows.append({"pairs": pairs, "start": start, **measured(args, folder, workdir)})
            print(rows[-1], file=sys.stderr)
    return rows


def closed(
    args: argparse.Namespace, kept: pathlib.Path, scratch: pathlib.Path
) -> dict[str, dict[str, float]]:
    """CCA and ridge on the larger size."""
    folder, found = make(kept / f"pairs-{args.pairs}", args.pairs), {}
    for method in ("cca", "ridge"):
        began = time.monotonic()
        run = measured(args, folder, scratch / method, {"method": method})
        seconds = round(time.monotonic() - began, 1)
        found[method] = {"seconds": seconds, "anonymous_mib": run["anonymous_mib"]}
        print(found, file=sys.stderr)
    return found


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2_000_000)
    parser.add_argument("--fits", type=int, default=100_000, help="pairs that fit both ways")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--width", type=int, default=1024, help="of the head")
    parser.add_argument("--steps", type=int, default=100, help="of a run")
    parser.add_argument("--rounds", type=int, default=7, help="of 64 steps each way")
    parser.add_argument("--parts", default="runs,closed,compare", help="some of them")
    parser.add_argument("--folder", help="where features stay")
    parser.add_argument("--compare", help=argparse.SUPPRESS)
    return parser.parse_args()


def make(folder: pathlib.Path, pairs: int) -> pathlib.Path:
    """Own features of so many pairs: `image-*.npy` and `text-*.npy`, nothing but noise."""
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(min(SHARD, pairs), 1 + TOKENS, WIDTH)).astype(ml_dtypes.bfloat16)
    for k, start in enumerate(range(0, pairs, SHARD)):
        print(f"\rmaking features {start:,}/{pairs:,}", end="", file=sys.stderr)
        # Signs and fractions of each shard are others; all stay finite.
        mask = rng.integers(0, 2**16, (1 + TOKENS, WIDTH), np.uint16) & np.uint16(0x807F)
        rows = noise.view(np.uint16)[: min(SHARD, pairs - start)] ^ mask
        rows = rows.view(ml_dtypes.bfloat16)
        np.save(folder / f"image-{k:05d}.npy", rows[:, 0])
        np.save(folder / f"text-{k:05d}.npy", rows[:, 1:])
    print(file=sys.stderr)
    (folder / "done").touch()
    return folder


def settings(args: argparse.Namespace, folder: pathlib.Path, place: str) -> dict[str, Any]:
    """The APE head on own features, for a run that is neither evaluated nor saved on the way."""
    return {
        "image.tower": f"features:{WIDTH}",
        "text.tower": f"features:{WIDTH}",
        "data.pairs": f"features:{folder}",
        "data.eval": {},
        "text.head.depth": 2,
        "text.head.width": args.width,
        "train.batch": args.batch,
        "train.log_every": 1,
        "train.eval_every": 0,
        "train.checkpoint_every": 0,
        "cache.views": 1,
        "cache.place": place,
    }


def measured(
    args: argparse.Namespace,
    folder: pathlib.Path,
    workdir: pathlib.Path,
    more: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """One run with the ordinary command, watched from outside."""
    flags = settings(args, folder, "disk") | (more or {"train.steps": args.steps})
    if more:  # A closed form has heads of its own.
        flags = {key: value for key, value in flags.items() if not key.startswith("text.head")}
    sides = ",".join(f"{key}={flags.pop(f'{key}.tower')}" for key in ("image", "text"))
    recipe = f"--config=ape:{sides},pairs={flags.pop('data.pairs')}"
    command = [sys.executable, "-m", "ape_jax.main", recipe, f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in flags.items()]
    started, seconds, most = time.monotonic(), 0.0, 0.0
    process = subprocess.Popen(command, env=environment(args), stdout=sys.stderr)
    while process.poll() is None:
        time.sleep(0.05)
        lines = workdir / "metrics.jsonl"
        if not seconds and lines.exists() and lines.stat().st_size:
            seconds = time.monotonic() - started
        most = max(most, anonymous(process.pid))
    if process.returncode:
        sys.exit(f"the run ended with status {process.returncode}")
    summary = json.loads((workdir / "summary.json").read_text())
    return {
        "first_step_seconds": round(seconds, 2),
        "anonymous_mib": round(most / 1024, 1),
        "loop_seconds": summary["seconds_last_start"],
    }


def anonymous(process: int) -> int:
    """Anonymous memory of a process in KiB, 0 where it has just ended."""
    try:
        lines = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def environment(args: argparse.Namespace) -> dict[str, str]:
    """The environment of a process."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def compare(args: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    """Steps from disk and from memory in turn, over the same records."""
    from ape_jax.training.input.feed import open_feed

    walls: dict[str, list[float]] = {"disk": [], "host": []}
    with tempfile.TemporaryDirectory() as scratch:
        loops = {}
        for place in walls:
            path = pathlib.Path(scratch) / place
            loops[place] = loop_on(args, folder, path, place)
        feeds = {place: open_feed(run) for place, (run, _) in loops.items()}
        for number in range(args.rounds + 1):
            print(f"round {number}/{args.rounds}", file=sys.stderr)
            for place, (_, loop) in loops.items():
                begin = time.perf_counter()
                for span, block in feeds[place].blocks(64 * number, 64 * number + 64):
                    loop.take(span, block)
                loop.flush()
                walls[place].append((time.perf_counter() - begin) / 64)
        lines = [(pathlib.Path(scratch) / place / "metrics.jsonl").read_text() for place in walls]
    warm = {place: times[1:] for place, times in walls.items()}  # The first one compiles.
    ratio = [disk / host for disk, host in zip(warm["disk"], warm["host"], strict=True)]
    return {
        "pairs": len(loops["disk"][0].dataset.pairs),
        "milliseconds_a_step": {p: round(1e3 * statistics.median(t), 3) for p, t in warm.items()},
        "disk_over_memory": round(statistics.median(ratio), 4),
        "losses": len(lines[0].splitlines()),
        "same_bits": lines[0] == lines[1],
    }


def loop_on(
    args: argparse.Namespace, folder: pathlib.Path, path: pathlib.Path, place: str
) -> tuple[Any, Any]:
    """A run and its loop, which never ends by itself."""
    from ape_jax.features.dataset import FeatureStore
    from ape_jax.runs import build
    from ape_jax.runs.checkpoints.checkpoint import Checkpoints
    from ape_jax.terminal.progress import Progress
    from ape_jax.training import run as run_lib
    from ape_jax.training.loop import Loop

    flat = settings(args, folder, place) | {"train.steps": 10**6, "train.steps_per_call": 32}
    config = config_lib.resolve(config_lib.unflatten(flat))
    sources = opened.sources(config)
    run = run_lib.prepare(config, sources, build.load_towers(config), FeatureStore())
    path.mkdir()
    loop = Loop(run, path, Checkpoints(path), {})
    loop._progress = Progress(place, None, "pairs")  # `train` makes it, which is not called.
    return run, loop


if __name__ == "__main__":
    main()
