"""The training loop: what the host costs, and what taking many steps in a call is worth.

    python tests/benchmarks/epoch.py

prints one JSON line; progress goes to stderr. The model, the optimizer and the loop are the
project's own, on random features of the demo's shape (MiniLM tokens, ViT-S CLS (+) patch mean). The
contestants take the same number of steps in turn, again and again; medians are compared.

device     the blocks lie ready on the device; nothing but their calls: the least there can be
resident   the loop as it is, with features on the device
streamed   the loop as it is, with blocks packed on the host by a thread
stepwise   the loop with features on the device and `train.steps_per_call=1`
plain      a step, a batch, a dispatch; each batch packed when it is needed
sampling   no steps: only the sampling of records, views and captions, which a thread does ahead

`host_share` is the processor time of the loop's own thread (Python, dispatch, fetches, metric
files) by the time of the steps on the device; that of `sampling` comes on top, on another core.
`over_device` is a loop's time by that of `device`: it holds the making of the batches too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_dtypes
import numpy as np

from ape_jax import config as config_lib
from ape_jax.align import heads
from ape_jax.align.model import Model, Side
from ape_jax.data.pairs import Pair
from ape_jax.features import ragged
from ape_jax.features.dataset import Captions, Dataset
from ape_jax.images.decode import ImageRef
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.runs.aligned import AlignedModel
from ape_jax.runs.checkpoints.checkpoint import Checkpoints
from ape_jax.terminal.progress import Progress
from ape_jax.towers import precomputed
from ape_jax.training import optim
from ape_jax.training.input.feed import Feed, open_feed
from ape_jax.training.input.sampler import Sampler
from ape_jax.training.loop import Loop
from ape_jax.training.run import Run
from ape_jax.training.step import make_step

TOKEN_WIDTH, IMAGE_WIDTH, VIEWS, CAPTIONS = 384, 768, 4, 5


def main() -> None:
    """Measures and prints."""
    args = parse()
    print(json.dumps(report(args, *measure(args))))


def measure(args: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each contestant in each round: on the wall, and of the loop's own thread."""
    with tempfile.TemporaryDirectory() as scratch:
        runners = contestants(args, pathlib.Path(scratch))
        for name, run in runners.items():
            print(f"warming up: {name}", file=sys.stderr)
            run()
        walls: dict[str, list[float]] = {name: [] for name in runners}
        hosts: dict[str, list[float]] = {name: [] for name in runners}
        for i in range(args.rounds):
            print(f"round {i + 1}/{args.rounds}", file=sys.stderr)
            for name, run in runners.items():
                start, busy = time.perf_counter(), time.thread_time()
                run()
                walls[name].append(time.perf_counter() - start)
                hosts[name].append(time.thread_time() - busy)
    return walls, hosts


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1190)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=6, help="of a caption, on average")
    parser.add_argument("--steps", type=int, default=64, help="of a contestant in a round")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def contestants(args: argparse.Namespace, scratch: pathlib.Path) -> dict[str, Callable[[], None]]:
    """What is measured, by name; each call goes on from where the last one ended."""
    dataset, mesh = make_dataset(args), mesh_lib.make_mesh()

    def loop(name: str, **changes: Any) -> tuple[Loop, Any]:
        config = make_config(args, **changes)
        run = make_run(config, dataset, mesh)
        checkpoints = Checkpoints(scratch / name)
        made = Loop(run, scratch / name, checkpoints, {})
        made._progress = Progress("training", config.train.steps, "pairs", args.batch)
        return made, open_feed(run)

    resident = loop("resident", **{"cache.place": "device"})
    return {
        "device": device(args, *resident),
        "resident": through(args, *resident),
        "streamed": through(args, *loop("streamed", **{"cache.place": "host"})),
        "stepwise": through(
            args, *loop("stepwise", **{"cache.place": "device", "train.steps_per_call": 1})
        ),
        "plain": plain(args, make_run(make_config(args, **{"cache.place": "host"}), dataset, mesh)),
        "sampling": sampling(args, dataset, mesh.size),
    }


def through(args: argparse.Namespace, loop: Loop, feed: Feed) -> Callable[[], None]:
    """The loop itself."""

    def run() -> None:
        for span, block in feed.blocks(0, args.steps):
            loop.take(span, block)
        loop.flush()

    return run


def device(args: argparse.Namespace, loop: Loop, feed: Feed) -> Callable[[], None]:
    """Calls on blocks that were made before; the state is the loop's, and stays there."""
    blocks = list(feed.blocks(0, args.steps))

    def run() -> None:
        for span, block in blocks:
            bounds = np.int32(span.start), np.int32(span.stop)
            loop._state, metrics = loop._train_on(
                loop._state, loop._frozen, loop._key, block, *bounds
            )
        jax.block_until_ready((loop._state, metrics))

    return run


def plain(args: argparse.Namespace, run_: Run) -> Callable[[], None]:
    """One dispatch a step, as loops are usually written."""
    own = run_.aligned
    train = own.config.train
    schedule = optim.make_schedule(own.config.optim, train.steps)
    optimizer = optim.make_optimizer(own.config.optim, schedule, own.trainable)
    step = jax.jit(make_step(own.model, "softmax", optimizer, own.mesh), donate_argnums=0)
    feed, key = open_feed(run_), jax.random.key(0)
    from ape_jax.training.step import init_state

    held = [mesh_lib.place_replicated(init_state(own.trainable, optimizer), own.mesh)]

    def run() -> None:
        pending = []
        for i, batch in enumerate(feed.batches(0, args.steps), 1):
            placed = mesh_lib.place_batch(batch, own.mesh)
            held[0], metrics = step(held[0], own.frozen, placed, key)
            pending.append(metrics)
            if i % train.log_every == 0 or i == args.steps:
                jax.device_get(pending)
                pending.clear()

    return run


def sampling(args: argparse.Namespace, dataset: Dataset, groups: int) -> Callable[[], None]:
    """Samples the steps on the host."""
    sampler, rounds = Sampler(dataset, 0, args.batch, groups), itertools.count()

    def run() -> None:
        first = next(rounds) * args.steps
        for step in range(first, first + args.steps):
            sampler.at(step)

    return run


def make_config(args: argparse.Namespace, **changes: Any) -> Any:
    """The demo's settings, for a run that never ends."""
    flat = {
        "image.tower": "none",
        "text.tower": "none",
        "data.pairs": "none",
        "text.head.depth": args.depth,
        "text.head.width": args.width,
        "train.batch": args.batch,
        "train.steps": 10**6,
        "train.log_every": 10,
        "optim.lr": 5e-4,
        "optim.weight_decay": 0.1,
        **changes,
    }
    return config_lib.resolve(config_lib.unflatten(flat))


def make_run(config: Any, dataset: Dataset, mesh: Any) -> Run:
    """What the loop needs, without towers and without evaluations."""
    text = precomputed.read(f"features:{TOKEN_WIDTH}", "text")
    image = precomputed.read(f"features:{IMAGE_WIDTH}", "image")
    head = heads.TokenMLP(
        IMAGE_WIDTH, text.config, depth=config.text.head.depth, width=config.text.head.width
    )
    model = Model(
        image=Side(tower=image, head=heads.Identity(), pooling="mean"),
        text=Side(tower=text, head=head),
        standardize=True,
    )
    trainable, frozen = model.init(0, {"image_tower": {}, "text_tower": {}})
    placed = (mesh_lib.place_replicated(tree, mesh) for tree in (trainable, frozen))
    trainable, frozen = placed
    aligned = AlignedModel(
        config=config, model=model, trainable=trainable, frozen=frozen, meta={}, mesh=mesh
    )
    return Run(aligned=aligned, dataset=dataset, tasks=())


def make_dataset(args: argparse.Namespace) -> Dataset:
    """Random features, stored in bf16, of captions of about `--tokens` tokens."""
    rng = np.random.default_rng(0)
    texts = args.pairs * CAPTIONS
    lengths = rng.integers(3, 2 * args.tokens - 2, texts)
    rows = [rng.normal(size=(n, TOKEN_WIDTH)).astype(ml_dtypes.bfloat16) for n in lengths]
    return Dataset(
        pairs=[Pair(ImageRef("", ""), (), str(i)) for i in range(args.pairs)],
        captions=Captions(
            tuple(map(str, range(texts))), np.arange(texts), np.arange(args.pairs + 1) * CAPTIONS
        ),
        pooled=rng.normal(size=(args.pairs, VIEWS, IMAGE_WIDTH)).astype(ml_dtypes.bfloat16),
        tokens=ragged.from_rows(rows),
    )


def report(
    args: argparse.Namespace, walls: dict[str, list[float]], hosts: dict[str, list[float]]
) -> dict[str, Any]:
    """Milliseconds a step, and the shares that the bars are about."""
    steps = {name: statistics.median(times) / args.steps for name, times in walls.items()}
    # Round by round: what slows a machine down slows the neighbours too.
    over = {
        name: statistics.median(a / b for a, b in zip(times, walls["device"]))
        for name, times in walls.items()
    }
    share = {
        name: statistics.median(a / b for a, b in zip(times, walls["device"]))
        for name, times in hosts.items()
    }
    return {
        "benchmark": "epoch",
        "batch": args.batch,
        "head": f"{args.depth}x{args.width}",
        "devices": jax.device_count(),
        "platform": jax.default_backend(),
        "milliseconds_a_step": {name: round(1e3 * t, 3) for name, t in steps.items()},
        "pairs_a_second": {name: round(args.batch / t) for name, t in steps.items()},
        "over_device": {name: round(x, 4) for name, x in over.items()},
        "host_milliseconds_a_step": {
            name: round(1e3 * statistics.median(t) / args.steps, 4) for name, t in hosts.items()
        },
        "host_share": {name: round(x, 4) for name, x in share.items()},
    }


if __name__ == "__main__":
    main()
