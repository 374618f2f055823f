"""Opening pairs at size: rows a second the first time, seconds again, memory, and what grows.

    python tests/benchmarks/pairs_at_size.py                     # 5 million rows of JSON lines
    python tests/benchmarks/pairs_at_size.py --rows 1000 100000  # the table over several sizes

Each size is written to a temporary folder and opened by two processes after each other, without
looking at images. Prints a JSON line a size: rows a second at the first opening, seconds of both,
milliseconds a pair, the highest anonymous memory (`/proc/self/smaps_rollup`) until the distinct
captions are found; seconds to find these, and microseconds to read a row by its index.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

WORDS = "red small old round bright wooden cat dog house tree river boat lamp chair on under beside"


def main() -> None:
    """Runs each size in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000_000])
    parser.add_argument("--folder", default="", help="where files are written; '' is temporary")
    parser.add_argument("--open", default="", help="for the processes that this one starts")
    args = parser.parse_args()
    if args.open:
        print(json.dumps(opened(args.open)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder or None) as folder:
        for rows in args.rows:
            print(json.dumps(measured(pathlib.Path(folder), rows)), flush=True)


def measured(folder: pathlib.Path, rows: int) -> dict[str, object]:
    """Writes a file, opens it twice and removes it."""
    path = folder / f"{rows}.jsonl"
    write(path, rows)
    env = {**os.environ, "APE_JAX_CACHE": str(folder / "cache")}
    command = [sys.executable, __file__, "--open", str(path)]
    first, again = (
        json.loads(subprocess.run(command, env=env, check=True, capture_output=True).stdout)
        for _ in range(2)
    )
    size = path.stat().st_size
    path.unlink()
    return {
        "benchmark": "pairs_at_size",
        "rows": rows,
        "file_mb": round(size / 1e6),
        "rows_per_second": round(rows / first["seconds"]),
        "ms_per_pair": round(1e3 * first["seconds"] / rows, 5),
        "first": first,
        "again": again,
    }


def write(path: pathlib.Path, rows: int) -> None:
    """Writes pairs whose images do not exist: a folder of 10,000 each, captions of nine words."""
    rng, words = random.Random(0), WORDS.split()
    with path.open("w") as file:
        for i in range(rows):
            caption = f"{' '.join(rng.choices(words, k=8))} {i}"
            file.write(f'{{"image": "{i // 10_000:05d}/{i:09d}.jpg", "caption": "{caption}"}}\n')


def opened(path: str) -> dict[str, float]:
    """Opens pairs and looks at them."""
    from ape_jax.data.options import Reading
    from ape_jax.data.specs import open_pairs
    from ape_jax.features.dataset import captions_of

    importlib.import_module("pyarrow.compute")  # Its import is no part of opening.
    with Highest() as memory:
        start = time.perf_counter()
        pairs = open_pairs(path, reading=Reading(look=False))
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        texts = captions_of(pairs).texts
        captions = time.perf_counter() - start
    chosen = random.Random(1).choices(range(len(pairs)), k=1000)
    start = time.perf_counter()
    for i in chosen:
        assert pairs[i].captions[0].endswith(f" {i}") and texts[i] == pairs[i].captions[0]
    row = (time.perf_counter() - start) / len(chosen)
    return {
        "seconds": round(seconds, 3),
        "anonymous_mb": memory.mb,
        "captions_seconds": round(captions, 3),
        "row_us": round(1e6 * row, 1),
    }


class Highest:
    """The highest anonymous memory of this process within a block, looked at by a thread."""

    def __enter__(self) -> Highest:
        self.mb, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.mb = max(self.mb, anonymous_mb())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.mb = max(self.mb, anonymous_mb())


def anonymous_mb() -> int:
    """Anonymous memory of this process."""
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) // 1024


if __name__ == "__main__":
    main()
