"""What a training step costs in every tuning mode, against training everything.

    python tests/benchmarks/modes.py --batch 16

compiles the project's own step for the shapes of the demo's towers (ViT-S/14 with LayerScale,
MiniLM; two projections to 256, AdamW, the global softmax loss) and prints a Markdown table and one
JSON line; progress goes to stderr. Nothing is computed or allocated: FLOPs and memory are the
compiler's own figures, with the blocks unrolled, since it counts a loop's body once. "temporary" is
what a step needs on top of its arguments, which are parameters, optimizer and batch; "memory" is
both. (The compiler's own "peak" leaves the temporary part out on a CPU.)

Images and captions are encoded in the step; "cached" is the same step on features that were encoded
once, in the modes that have any.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ape_jax import towers
from ape_jax.align import heads
from ape_jax.align.model import Model, Side
from ape_jax.config.sections import OptimConfig
from ape_jax.nn import stack
from ape_jax.terminal import tables as report
from ape_jax.towers.tower import Tower
from ape_jax.training import optim as optim_lib
from ape_jax.training import step as step_lib

JOINT = 256
VIT_S14 = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "patch_size": 14,
}
MINILM = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
MODES = (
    "full/full",
    "frozen/full",
    "frozen/frozen",
    "layernorm/layernorm",
    "bitfit/bitfit",
    "adapter/adapter",
    "adapter+layernorm/adapter+layernorm",
    "adapter+bitfit/adapter+bitfit",
    "lora/lora",
    "append/append",
    "append+layernorm/append+layernorm",
    "top:2/top:2",
)
TITLES = {"frozen/full": "LiT (frozen/full)", "full/full": "CLIP (full)"}


@dataclasses.dataclass(frozen=True)
class Cost:
    """The compiler's figures for one program."""

    gflop: float
    temporary_mib: float
    memory_mib: float


def main() -> None:
    """Compiles each mode and prints the table."""
    args = parse()
    rows: list[dict[str, Any]] = []
    for mode in args.modes.split(","):
        start = time.perf_counter()
        rows.append(measure(mode, args))
        print(f"{mode}: compiled in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(table(rows))
    print(json.dumps({**vars(args), "jax": jax.__version__, "rows": rows}))


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--remat", choices=tuple(stack.REMAT), default="none")
    parser.add_argument("--modes", default=",".join(MODES), help="IMAGE/TEXT, separated by commas")
    return parser.parse_args()


def measure(mode: str, args: argparse.Namespace) -> dict[str, Any]:
    """A mode's trained parameters and costs."""
    model, (trainable, frozen) = make_model(mode, args)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (trainable, frozen)]
    raw = {
        "image": shape(args.batch, args.image_size, args.image_size, 3),
        "ids": shape(args.batch, args.tokens, dtype=jnp.int32),
        "mask": shape(args.batch, args.tokens, dtype=jnp.bool_),
        "index": shape(args.batch, dtype=jnp.int32),
    }
    found = {
        "mode": mode,
        "trained": sizes[0],
        "percent": round(100 * sizes[0] / sum(sizes), 2),
        **dataclasses.asdict(compiled(model, trainable, frozen, raw)),
    }
    if "input" not in (model.image.frontier, model.text.frontier):
        batch = {"index": raw["index"], "mask": raw["mask"]}
        batch["pooled"] = jax.eval_shape(model.encode_images, frozen, raw["image"])
        texts = jax.eval_shape(model.encode_texts, frozen, raw)
        batch["tokens"] = texts.tokens if texts.hidden is None else texts.hidden
        cached = compiled(model, trainable, frozen, batch)
        found |= {f"cached_{key}": value for key, value in dataclasses.asdict(cached).items()}
    return found


def make_model(mode: str, args: argparse.Namespace) -> tuple[Model, tuple[PyTree, PyTree]]:
    """The model, and the shapes of its two trees."""
    image_tune, text_tune = mode.split("/")
    image, text = make_tower(VIT_S14, args, image_size=args.image_size), make_tower(MINILM, args)
    dtype = jnp.dtype(args.dtype)
    head = heads.Linear(JOINT, dtype=dtype)
    text_head = heads.OnPooledText(heads.Linear(JOINT, dtype), text.config, "cls")
    model = Model(
        image=Side(tower=image, head=head, tune=image_tune, pooling="cls"),
        text=Side(tower=text, head=text_head, tune=text_tune),
    )
    params = {
        "image_tower": towers.abstract_params(image.module),
        "text_tower": towers.abstract_params(text.module),
    }
    return model, jax.eval_shape(functools.partial(model.init, 0), params)


def make_tower(config: dict[str, Any], args: argparse.Namespace, **options: int) -> Tower:
    """A tower as its config.json describes it, without weights."""
    module, made = towers.build(config, dtype=args.dtype, unroll=True, **options)
    module = module.clone(remat=args.remat)
    return Tower(
        kind=made.kind,
        module=module,
        config=made,
        prepare=None,
        spec="",
        digest="",
    )


def compiled(model: Model, trainable: PyTree, frozen: PyTree, batch: dict[str, Any]) -> Cost:
    """The costs of a training step on such a batch."""
    optim = OptimConfig()
    schedule = optim_lib.make_schedule(optim, 1000)
    optimizer = optim_lib.make_optimizer(optim, schedule, trainable)
    state = jax.eval_shape(lambda tree: step_lib.init_state(tree, optimizer), trainable)
    step = jax.jit(step_lib.make_step(model, "softmax", optimizer), donate_argnums=0)
    key = jax.eval_shape(lambda: jax.random.key(0))
    # Nothing is run: LLVM, which comes after all that is measured, need not try hard.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    program = step.lower(state, frozen, batch, key).compile(options)
    memory = program.memory_analysis()
    return Cost(
        gflop=round(program.cost_analysis()["flops"] / 1e9, 2),
        temporary_mib=round(memory.temp_size_in_bytes / 2**20, 1),
        # Outputs take the place of arguments that are donated.
        memory_mib=round((memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**20, 1),
    )


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """An array that is not there."""
    return jax.ShapeDtypeStruct(sizes, dtype)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, in percent of the first."""
    whole = rows[0]

    def share(row: dict[str, Any], key: str, prefix: str = "") -> str:
        value = row.get(prefix + key)
        return "-" if value is None else f"{100 * value / whole[key]:.1f}"

    head = [
        "image/text",
        "trained",
        "% of all",
        "GFLOP",
        "%",
        "temporary MiB",
        "%",
        "memory MiB",
        "%",
    ]
    head += ["cached: GFLOP %", "temporary %", "memory %"]
    keys = ("gflop", "temporary_mib", "memory_mib")
    lines = []
    for row in rows:
        line = [TITLES.get(row["mode"], row["mode"]), f"{row['trained']:,}", f"{row['percent']}"]
        for key in keys:
            line += [f"{row[key]:,.1f}", share(row, key)]
        lines.append(line + [share(row, key, "cached_") for key in keys])
    return report.markdown(head, lines)


if __name__ == "__main__":
    main()
