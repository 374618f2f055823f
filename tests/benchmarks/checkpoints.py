"""What hashing costs when checkpoints are saved and read.

    python tests/benchmarks/checkpoints.py [--parameters 100000000] [--rounds 5] [--folder DIR]

saves and restores a training state of so many f32 parameters (LiT's text tower is of that size) and
AdamW's two moments, with hashes and without, in turn, and prints one JSON line.

save     seconds until training may go on, and until the checkpoint has its name; medians of rounds
restore  seconds to read the whole state, with warm pages
hashing  seconds for the hashes alone, and their GB a second
ratio    with hashes over without
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ape_jax.runs.checkpoints import hashes, trees
from ape_jax.runs.checkpoints.checkpoint import Checkpoints
from ape_jax.training.step import init_state


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default=None)
    args = parser.parse_args()
    state = make(args.parameters)
    found: dict[str, dict[str, list[float]]] = {"with": {}, "without": {}}
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="ape_jax_ckpt_") as scratch:
        for number in range(args.rounds):
            for name, values in found.items():
                with unhashed() if name == "without" else contextlib.nullcontext():
                    for key, seconds in once(pathlib.Path(scratch), state, number).items():
                        values.setdefault(key, []).append(seconds)
    medians = {n: {k: statistics.median(v) for k, v in kinds.items()} for n, kinds in found.items()}
    ratio = {key: medians["with"][key] / medians["without"][key] for key in medians["with"]}
    begin = time.monotonic()
    hashes.of_trees(trees.of_state(state, {}))
    alone = time.monotonic() - begin
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e9
    result = {**medians, "ratio": ratio, "hashing": {"s": alone, "gb_per_s": size / alone}}
    print(json.dumps({"parameters": args.parameters, "gb": size, **rounded(result)}))


def make(parameters: int) -> Any:
    """A state of blocks of 7 million parameters, as those of a transformer."""
    rng, width = np.random.default_rng(0), 768
    count = max(parameters // (12 * width * width), 1)
    shapes = {"qkv": (width, 3, width), "out": (width, width), "up": (width, 4 * width)}
    shapes["down"] = (4 * width, width)
    tree = {
        f"block_{i}": {
            name: jnp.asarray(rng.normal(size=shape).astype(np.float32))
            for name, shape in shapes.items()
        }
        for i in range(count)
    }
    return init_state(tree, optax.adamw(1e-3))


@contextlib.contextmanager
def unhashed() -> Iterator[None]:
    """Saves and reads as if there were no hashes."""
    with (
        mock.patch.object(hashes, "of_trees", lambda trees: {}),
        mock.patch.object(hashes, "damaged", lambda trees, expected: None),
    ):
        yield


def once(scratch: pathlib.Path, state: Any, number: int) -> dict[str, float]:
    """Seconds of one save and one restore."""
    folder = scratch / f"run-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    checkpoints = Checkpoints(folder, keep=1)
    begin = time.monotonic()
    checkpoints.save(state.replace(step=jnp.int32(1)), {}, {"text tower": {}})
    blocked = time.monotonic() - begin
    checkpoints.wait()
    saved = time.monotonic() - begin
    begin = time.monotonic()
    restored, _ = checkpoints.restore(state, {})
    jax.block_until_ready(restored)
    read = time.monotonic() - begin
    checkpoints.close()
    shutil.rmtree(folder)
    return {"save_blocks": blocked, "save": saved, "restore": read}


def rounded(value: Any) -> Any:
    """Three places."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(value, 3) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
