"""Bar 5: how many augmented views of an image pay, under the same style and under another.

    python tests/benchmarks/views.py [--validation] [--views 1,4,10,30,0] [--seeds 3]
        [--workdir DIR] [--config.KEY=VALUE ...]

trains the recipe `demo` with each number of cached views (1 is the clean image, 0 a fresh view in
every step) and prints a Markdown table and one JSON line; progress goes to stderr. For each:

* R@10, mean of both directions, on every evaluation set: mean and standard deviation over seeds;
* what it costs: training images encoded (with fresh views, in every run anew), bytes of their
  features, and seconds of encoding them (a cache that was there already costs nothing, so give an
  empty `--config.cache.dir` to time it);
* seconds of training a seed, encoding of fresh views included.

With `--validation` the sets are those for choosing hyper-parameters. Cells that are done in DIR are
not run again.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from typing import Any

import numpy as np

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.features.dataset import FeatureStore
from ape_jax.terminal import tables as report
from ape_jax.training import extraction, loop


def main() -> None:
    """Runs every cell and prints the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--views", default="1,4,10,30,0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workdir", help="where cells are kept; a temporary directory")
    flags, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="ape_jax_views_") as temporary:
        folder = pathlib.Path(flags.workdir or temporary)
        rows = [
            measure(int(views), flags.seeds, flags.validation, overrides, folder)
            for views in flags.views.split(",")
        ]
    print(table(rows), flush=True)
    print(json.dumps({"benchmark": "views", "rows": rows}))


def measure(
    views: int, seeds: int, validation: bool, overrides: list[str], folder: pathlib.Path
) -> dict[str, Any]:
    """One number of views: extraction, and a training for each seed."""
    store, recalls, train = FeatureStore(), [], []
    for seed in range(seeds):
        config = recipes.read("demo:validation" if validation else "demo")
        config.cache.views, config.seed = views, seed
        if views == 1:  # Encoded once and clean: there is nothing to augment.
            config.augment.crop, config.augment.flip, config.augment.randaugment = (), False, ()
        pairs = (text.removeprefix("--config.").split("=", 1) for text in overrides)
        config_lib.override(config, {k: v for k, v in pairs if not (views == 1 and "augment" in k)})
        config = config_lib.resolve(config)
        cell = folder / f"views{views}"
        if seed == 0:
            extracted = extraction.extract(config, cell)
        summary = loop.train_and_evaluate(config, cell / f"seed{seed}", store)
        train.append(summary["seconds_last_start"])
        recalls.append({name: _recall(summary, name) for name in config.data.eval})
    images = [c for c in extracted["caches"] if c["what"] == "training images"]
    fresh = config.train.steps * config.train.batch
    return {
        "views": views,
        "images_encoded": fresh if views == 0 else sum(c["items"] for c in images),
        "r10": {name: [round(r[name], 4) for r in recalls] for name in recalls[0]},
        "encode_seconds": round(sum(c["seconds"] for c in images), 1),
        "feature_bytes": sum(c["bytes"] for c in images),
        "train_seconds": round(float(np.median(train)), 1),
    }


def _recall(summary: dict[str, Any], name: str) -> float:
    return (summary[f"eval/{name}/i2t_r10"] + summary[f"eval/{name}/t2i_r10"]) / 2


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    names = list(rows[0]["r10"])
    head = ["views", *(f"{name} R@10" for name in names)]
    head += ["encoded", "MB", "encode, s", "train, s"]
    return report.markdown(
        head,
        [
            [
                "fresh" if row["views"] == 0 else str(row["views"]),
                *(_spread(row["r10"][name]) for name in names),
                f"{row['images_encoded']:,}",
                f"{row['feature_bytes'] / 1e6:.1f}",
                f"{row['encode_seconds']:.0f}",
                f"{row['train_seconds']:.0f}",
            ]
            for row in rows
        ],
    )


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{100 * values[0]:.1f} (one seed)"
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}"


if __name__ == "__main__":
    main()
