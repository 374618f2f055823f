"""What the planner says of the large recipes, in one JSON line and a table.

python tests/benchmarks/plans.py [--only lit] [--slices v5e:2x4,v5e:16x16]

Needs the TPU compiler (`ape_jax[plan-tpu]`) and no TPU. Only the training step is compiled.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from absl import app, flags

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.errors import UserError
from ape_jax.planner import estimate, targets
from ape_jax.planner.shapes import Captions
from ape_jax.terminal.tables import markdown

_ONLY = flags.DEFINE_string("only", "", "Cases whose name begins so.")
_SLICES = flags.DEFINE_list("slices", [], "In place of the usual ones.")

EIGHT = ("v5e:2x4", "v6e:2x4", "v4:2x2x2", "v5p:2x2x2")
MANY = ("v5e:16x16", "v6e:16x16", "v4:4x8x8", "v5p:4x8x8")
VECTORS = "image=features:1024,text=features:1024,pairs=features:x.npz"

# name: (recipe, its argument, keys that are set, tokens of a caption, slices)
CASES: dict[str, tuple[str, str, dict[str, Any], Captions, tuple[str, ...]]] = {
    **{
        name: (name, "paper,pairs=x", {}, Captions(mean=13, longest=64), where)
        for name in ("ape", "lit")
        for where in (EIGHT + MANY,)
    },
    **{
        f"pooled {batch:,}": (
            "ape",
            f"{VECTORS},batch={batch}",
            {"text.head.name": "pooled_mlp", "text.head.width": 4096},
            Captions(mean=1, longest=1),
            ("v5e:16x16",),
        )
        for batch in (2**20, 2**24)
    },
    **{
        f"tokens {batch:,}": (
            "ape",
            "paper,pairs=x",
            {"train.batch": batch, "train.micro_batch": micro},
            Captions(mean=13, longest=64),
            ("v5e:16x16",),
        )
        for batch, micro in ((2**20, 0), (2**24, 2**19))
    },
}


def _config(recipe: str, arg: str, settings: dict[str, Any]) -> config_lib.Config:
    config = recipes.read(f"{recipe}:{arg}")
    config_lib.override(config, {key: str(value) for key, value in settings.items()})
    return config_lib.resolve(config)


def plan(name: str, where: str) -> dict[str, Any]:
    """One row: what a step of the case costs on a slice."""
    recipe, arg, settings, captions, _ = CASES[name]
    started, slice_ = time.monotonic(), targets.parse(where)
    row: dict[str, Any] = {"case": name, "slice": where, "chips": slice_.chips}
    try:
        config = _config(recipe, arg, settings)
        made = estimate.assemble(config, slice_)
        cost = estimate.training(config, slice_, captions, made)
    except UserError as error:
        return {**row, "fits": False, "reason": str(error)}
    row |= {"batch": config.train.batch, "fits": cost.fits, "reason": cost.reason}
    row |= {"gib": cost.peak / 2**30, "milliseconds": 1e3 * cost.seconds}
    row |= {"passes": cost.passes, "memory_traffic": cost.memory_traffic}
    row["sent"] = sum(cost.traffic.values())
    row["pairs_a_second"] = cost.rows / cost.seconds if cost.seconds else 0.0
    return {**row, "compiled_in": time.monotonic() - started}


def _line(row: dict[str, Any]) -> list[str]:
    head = [row["case"], row["slice"], f"{row.get('batch', 0):,}"]
    if not row["fits"]:
        return [*head, "no", row["reason"], ""]
    return [*head, "yes", f"{row['gib']:.2f}", f"{row['milliseconds']:,.1f}"]


def main(argv: list[str]) -> None:
    """Prints each row as it comes, then all of them."""
    del argv
    targets.leave_this_machine()
    rows = []
    for name, (*_, usual) in CASES.items():
        for where in (_SLICES.value or usual) if name.startswith(_ONLY.value) else ():
            rows.append(plan(name, where))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    head = ["recipe", "slice", "batch", "fits", "peak, GiB a chip", "ms a step, estimated"]
    print(markdown(head, [_line(row) for row in rows]), file=sys.stderr)
    print(json.dumps({"plans": rows}))


if __name__ == "__main__":
    app.run(main)
