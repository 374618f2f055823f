"""The head's training step: its speed, beside this machine's own products and beside torch.

    python tests/benchmarks/head_step.py --lengths coco --dtype float32

prints one JSON line; progress goes to stderr. Forward, backward, the softmax loss over the batch,
clipping and AdamW are the project's own `make_step` and `make_optimizer`, on random features of
MiniLM's width with real or drawn caption lengths. All contestants run in turn, again and again,
and medians are compared, so that a machine that changes its pace does so for all of them alike.

FLOPs are those of real tokens only. `share` is FLOP/s of the step by FLOP/s of the project's own
`product` of a token array with a square kernel, in the same precision and run. `error` is the
relative error of the gradient against torch in f64.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ape_jax.align import heads
from ape_jax.align.model import Model, Side
from ape_jax.config.sections import OptimConfig
from ape_jax.features import ragged
from ape_jax.nn.matmul import product
from ape_jax.towers import precomputed
from ape_jax.training import optim as optim_lib
from ape_jax.training import step as step_lib

TOKEN_WIDTH, IMAGE_WIDTH, LONGEST = 384, 768, 64  # MiniLM; ViT-S, CLS (+) patch mean.


def main() -> None:
    """Measures what the flags ask for."""
    args = parse()
    rng = np.random.default_rng(0)
    lengths = draw_lengths(args.lengths, args.batch, rng)
    rows = [rng.normal(size=(n, args.token_width)).astype(np.float32) for n in lengths]
    if args.dtype == "bfloat16":  # What the cache stores, and torch gets the same numbers.
        rows = [row.astype(jnp.bfloat16).astype(np.float32) for row in rows]
    tokens = ragged.from_rows(rows)
    pooled = rng.normal(size=(args.batch, args.image_width)).astype(np.float32)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter

    bench = Bench(args, tokens, pooled)
    runs: dict[str, Callable[[], None]] = {"product": bench.product}
    batches = bench.batches()
    for name in args.forms.split(","):
        runs[name] = bench.stepper(batches[name])
    errors: dict[str, float | None] = {}
    if not args.no_torch:
        runs |= torch_runs(args, bench, tokens, pooled, batches["packed"], errors)
    for name, run in runs.items():
        print(f"warming up: {name}", file=sys.stderr)
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(args.rounds):
        print(f"round {i + 1}/{args.rounds}", file=sys.stderr)
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    print(json.dumps(report(args, bench, times, errors)))


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--token-width", type=int, default=TOKEN_WIDTH)
    parser.add_argument("--image-width", type=int, default=IMAGE_WIDTH)
    parser.add_argument("--lengths", choices=("coco", "demo"), default="coco")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--forms", default="packed,padded_longest,padded_maximum")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: this process's processor time over all threads, where other work disturbs",
    )
    return parser.parse_args()


def draw_lengths(kind: str, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Tokens of each caption of a batch: MiniLM's of the demo, or like COCO's (mean 13)."""
    if kind == "coco":
        return np.clip(np.rint(rng.lognormal(np.log(12.4), 0.3, size=batch)), 5, LONGEST).astype(
            int
        )
    from ape_jax import data, towers

    pairs = data.open_pairs("demo:twemoji:train")
    captions = [pairs[int(i)].captions for i in rng.integers(len(pairs), size=batch)]
    chosen = [texts[rng.integers(len(texts))] for texts in captions]
    return np.asarray(towers.load("demo:minilm", kind="text").prepare.lengths(chosen))


class Bench:
    """The project's side: a model without towers, its step, and the plain product."""

    def __init__(self, args: argparse.Namespace, tokens: ragged.RaggedTokens, pooled: np.ndarray):
        self.args, self.tokens, self.pooled = args, tokens, pooled
        self.optim = OptimConfig(weight_decay=0.1, clip=1.0, warmup=0)
        self.model = make_model(args)
        self.trainable, self.frozen = self.model.init(0, {"image_tower": {}, "text_tower": {}})
        schedule = optim_lib.make_schedule(self.optim, 1000)
        self._optimizer = optim_lib.make_optimizer(self.optim, schedule, self.trainable)
        step = step_lib.make_step(self.model, "softmax", self._optimizer)
        self._step = jax.jit(step, donate_argnums=0)
        dtype = jnp.dtype(args.dtype)
        size = ragged.bucket(int(tokens.lengths.sum()))
        # Inputs as the layers find them: activations in f32, which `product` rounds itself.
        self._a = jnp.ones((size, args.width), dtype)
        self._b = jnp.ones((args.width, args.width), dtype)
        self._product = jax.jit(lambda a, b: product(a, b, dtype))

    def product(self) -> None:
        """One product of a token array with a square kernel."""
        self._product(self._a, self._b).block_until_ready()

    def batches(self) -> dict[str, dict[str, jax.Array]]:
        """The same batch packed, padded to its longest caption, padded to the maximum."""
        rows, stored = np.arange(self.args.batch), jnp.dtype(self.args.dtype)
        shared = {"pooled": self.pooled, "index": rows.astype(np.int32)}
        size = ragged.bucket(self.tokens.largest_group(rows, 1))
        packed = dict(zip(("tokens", "lengths"), self.tokens.packed(rows, 1, size)))
        made = {"packed": packed}
        for name, length in (
            ("padded_longest", self.tokens.longest),
            ("padded_maximum", max(LONGEST, self.tokens.longest)),
        ):
            made[name] = dict(zip(("tokens", "mask"), self.tokens.padded(rows, length)))
        for name in list(made):
            if name not in self.args.forms.split(",") and name != "packed":
                del made[name]
                continue
            made[name]["tokens"] = made[name]["tokens"].astype(stored)
            made[name] = jax.device_put({**made[name], **shared})
        return made

    def stepper(self, batch: dict[str, jax.Array]) -> Callable[[], None]:
        """A function that takes one training step, of a state of its own."""
        state = step_lib.init_state(jax.tree.map(jnp.copy, self.trainable), self._optimizer)
        key = jax.random.key(0)

        def run() -> None:
            nonlocal state
            state, metrics = self._step(state, self.frozen, batch, key)
            jax.block_until_ready((state, metrics))

        return run

    def gradient(self, batch: dict[str, jax.Array]) -> np.ndarray:
        """The gradient, flat, with kernels as torch lays them out."""

        def loss(trainable: Any) -> jax.Array:
            return step_lib.contrastive_loss(
                self.model, "softmax", None, trainable, self.frozen, batch
            )[0]

        grads = jax.device_get(jax.jit(jax.grad(loss))(self.trainable))
        layers = [grads["text_head"][f"dense_{i}"] for i in range(self.args.depth)]
        parts = [np.asarray(layer[k]).T.ravel() for layer in layers for k in ("kernel", "bias")]
        return np.concatenate([*parts, [grads["loss"]["log_scale"]]]).astype(np.float64)

    def flops(self) -> float:
        """Of one step on real tokens: the MLP, the last layer on pooled vectors, the loss."""
        a, total = self.args, int(self.tokens.lengths.sum())
        if a.depth > 1:
            hidden = a.token_width * a.width * 2 + (a.depth - 2) * a.width**2 * 3
            last = a.width * a.image_width * 3
        else:  # Nothing below needs a gradient.
            hidden, last = 0, a.token_width * a.image_width * 2
        return 2.0 * (total * hidden + a.batch * last) + 4.0 * a.batch**2 * a.image_width


def make_model(args: argparse.Namespace) -> Model:
    """APE's model with a TokenMLP, on towers that are never run."""
    image = precomputed.read(f"features:{args.image_width}", "image")
    text = precomputed.read(f"features:{args.token_width}", "text")
    how = {"depth": args.depth, "width": args.width, "dtype": jnp.dtype(args.dtype)}
    head = heads.TokenMLP(args.image_width, text.config, **how)
    return Model(
        image=Side(tower=image, head=heads.Identity(), pooling="mean"),
        text=Side(tower=text, head=head),
    )


def torch_runs(
    args: argparse.Namespace,
    bench: Bench,
    tokens: ragged.RaggedTokens,
    pooled: np.ndarray,
    packed: dict[str, jax.Array],
    errors: dict[str, float | None],
) -> dict[str, Callable[[], None]]:
    """Torch's contestants where torch is installed; fills in everybody's error on the way."""
    try:
        import torch
        import torch_head
    except ImportError:
        return {}
    zimg = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    optim = {k: bench.optim[k] for k in ("lr", "b1", "b2", "weight_decay", "clip")}
    params = bench.trainable["text_head"]

    reference = torch_head.TorchHead(params, torch.float64, False, optim)
    exact = reference.gradient(reference.place(tokens.flat, tokens.lengths, zimg))

    def error(gradient: np.ndarray) -> float:
        return float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))

    errors["packed"] = error(bench.gradient(packed))
    runs: dict[str, Callable[[], None]] = {}
    forms = torch_head.contestants(params, args.dtype, optim, not args.no_compile)
    for name, (precision, make) in forms.items():
        head = make()
        placed = head.place(tokens.flat, tokens.lengths, zimg)

        def run(head: Any = head, placed: Any = placed, precision: str = precision) -> None:
            torch.set_float32_matmul_precision(precision)
            head.step(placed)

        torch.set_float32_matmul_precision(precision)
        print(f"torch {name}", file=sys.stderr)
        errors[f"torch {name}"] = error(head.gradient(placed))
        runs[f"torch {name}"] = run
    return runs


def report(
    args: argparse.Namespace,
    bench: Bench,
    times: dict[str, list[float]],
    errors: dict[str, float | None],
) -> dict[str, Any]:
    """The JSON line."""
    # Processor time counts every thread; a step that keeps all busy takes that much less.
    threads = os.cpu_count() if args.clock == "cpu" else 1
    medians = {name: statistics.median(t) / threads for name, t in times.items()}
    size = bench._a.shape[0]
    speed = 2.0 * size * args.width**2 / medians.pop("product")
    flops = bench.flops()
    line: dict[str, Any] = {
        "benchmark": "head_step",
        **{k: getattr(args, k) for k in ("batch", "width", "depth", "lengths", "dtype", "clock")},
        "tokens": int(bench.tokens.lengths.sum()),
        "tokens_packed": size,
        "longest": bench.tokens.longest,
        "product_gflops": round(speed / 1e9, 1),
    }
    for name, seconds in medians.items():
        line[name] = {
            "ms": round(1e3 * seconds, 2),
            "pairs_per_s": round(args.batch / seconds),
            "gflops": round(flops / seconds / 1e9, 1),
            "share": round(flops / seconds / speed, 3),
        }
        if errors.get(name) is not None:
            line[name]["error"] = float(f"{errors[name]:.2g}")
    for name, seconds in medians.items():
        if name != "packed" and "packed" in medians:
            line[name]["packed_is_faster_by"] = round(seconds / medians["packed"], 3)
    return line


if __name__ == "__main__":
    main()
