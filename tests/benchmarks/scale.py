"""Bar 7: extraction and training at 1 k, 10 k and 50 k real pairs, with the ordinary commands.

    python tests/benchmarks/scale.py [--sizes 1024,10240,0] [--epochs 20] [--out FILE] [--keep DIR]

For each size a child process encodes `icons:n=SIZE` into an empty cache
(`python -m ape_jax.extract`), and another trains on it (`python -m ape_jax.main`), forbidden to
encode; 0 is all pairs. With `--keep`, features of all pairs stay in DIR/all/features, where
`study:icons` finds them. Prints a Markdown table and one JSON line:

* seconds of each, whole processes from start to end, by the clock and of processor time; those of
  encoding images and captions alone, and of the training loop alone, by the clock;
* bytes of the features;
* the peak of each process's resident memory, and what of the training's lies above the features,
  which it holds in memory once;
* linearity: the time a pair takes between the two larger sizes over that between the two smaller
  ones, which is 1 where time grows linearly above a fixed start; processor time says so on a
  machine that is shared, too.

The icons are fetched first where they are not there (`python -m ape_jax.demo --only icons`).
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from ape_jax.demo.icons import pairs as icons
from ape_jax.demo.towers import assets
from ape_jax.terminal import tables as report

ROOT = pathlib.Path(__file__).parent.parent.parent
_LIMIT_MIB = 1536


def main() -> None:
    """Measures every size and prints the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", default="1024,10240,0")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", help="also write the JSON line to this file")
    parser.add_argument("--keep", type=pathlib.Path, help="an empty directory for runs and caches")
    flags = parser.parse_args()
    sizes = [int(size) for size in flags.sizes.split(",")]
    icons.prepare()
    for tower in ("vit_s14", "minilm"):
        assets.tower_dir(tower)
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="ape_jax_scale_") as folder:
            place = (flags.keep or pathlib.Path(folder)) / (str(size) if size else "all")
            rows.append(measure(size, flags.epochs, place))
    print(table(rows), flush=True)
    line = json.dumps({"benchmark": "scale", "rows": rows, "linearity": linearity(rows)})
    print(line)
    if flags.out:
        pathlib.Path(flags.out).write_text(line + "\n")


def measure(size: int, epochs: int, folder: pathlib.Path) -> dict[str, float]:
    """One size: extraction into an empty cache, then training from it."""
    extract = run("extract", size, epochs, folder)
    written = json.loads((folder / "extract/extract.json").read_text())
    train = run("main", size, epochs, folder, "--config.cache.missing=error")
    summary = json.loads((folder / "main/summary.json").read_text())
    caches = written["caches"]
    seconds = {
        kind: sum(c["seconds"] for c in caches if kind in c["what"])
        for kind in ("images", "captions")
    }
    features = sum(c["bytes"] for c in caches)
    return {
        "pairs": sum(c["items"] for c in caches if "images" in c["what"]),
        "captions": sum(c["items"] for c in caches if "captions" in c["what"]),
        "feature_bytes": features,
        "extract_seconds": extract["seconds"],
        "extract_cpu_seconds": extract["cpu_seconds"],
        "image_seconds": seconds["images"],
        "caption_seconds": seconds["captions"],
        "extract_peak_mib": extract["peak_mib"],
        "train_steps": summary["step"],
        "train_seconds": train["seconds"],
        "train_cpu_seconds": train["cpu_seconds"],
        "loop_seconds": summary["seconds_last_start"],
        "train_peak_mib": train["peak_mib"],
        "train_mib_above_features": round(train["peak_mib"] - features / 2**20, 1),
    }


def run(command: str, size: int, epochs: int, folder: pathlib.Path, *more: str) -> dict[str, float]:
    """Seconds and peak resident memory of one command in a process of its own."""
    arguments = [
        *(sys.executable, "-m", f"ape_jax.{command}"),
        f"--config=icons:epochs={epochs}" + (f",n={size}" if size else ""),
        f"--workdir={folder / command}",
        f"--config.cache.dir={folder / 'features'}",
        "--config.data.eval={}",
        *more,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    process = subprocess.Popen(arguments, stdout=sys.stderr, env=environment)
    # The kernel's own record of this one child: the peak counts even if it lasted a moment.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"ape_jax.{command} ended with status {process.returncode}")
    kib = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return {
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(kib / 1024, 1),
    }


def linearity(rows: list[dict[str, float]]) -> dict[str, float]:
    """Marginal time a pair of the last two sizes over that of the first two; {} for fewer."""
    if len(rows) < 3:
        return {}

    def slope(key: str, first: dict[str, float], second: dict[str, float]) -> float:
        return (second[key] - first[key]) / (second["pairs"] - first["pairs"])

    keys = ("extract_seconds", "extract_cpu_seconds", "train_seconds", "train_cpu_seconds")
    return {
        key: round(slope(key, rows[-2], rows[-1]) / slope(key, rows[0], rows[-2]), 3)
        for key in keys
    }


def table(rows: list[dict[str, float]]) -> str:
    """The rows in Markdown."""
    head = ["pairs", "features, MB", "extract, s", "images, s", "captions, s", "ms a pair"]
    head += [
        "CPU ms a pair",
        "train, s",
        "loop, s",
        "ms a pair",
        "CPU ms a pair",
        "peak, MiB",
        f"above features, MiB (< {_LIMIT_MIB})",
    ]
    return report.markdown(
        head,
        [
            [
                f"{row['pairs']:,}",
                f"{row['feature_bytes'] / 1e6:.1f}",
                f"{row['extract_seconds']:.1f}",
                f"{row['image_seconds']:.1f}",
                f"{row['caption_seconds']:.1f}",
                f"{1e3 * row['extract_seconds'] / row['pairs']:.2f}",
                f"{1e3 * row['extract_cpu_seconds'] / row['pairs']:.2f}",
                f"{row['train_seconds']:.1f}",
                f"{row['loop_seconds']:.1f}",
                f"{1e3 * row['train_seconds'] / row['pairs']:.2f}",
                f"{1e3 * row['train_cpu_seconds'] / row['pairs']:.2f}",
                f"{max(row['train_peak_mib'], row['extract_peak_mib']):.0f}",
                f"{row['train_mib_above_features']:.0f}",
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
