"""Variants of the recipe `few_pairs` side by side, on the validation concepts of the emoji.

    python tests/benchmarks/variants.py VARIANT... [--seeds 3] [--workdir DIR]
        [--partitions 1,2,3] [--split validation] [--bench emoji] [--config.KEY=VALUE ...]

    python tests/benchmarks/variants.py subwords.weight=0.1 subwords.weight=1 train.folds=5

A VARIANT is `KEY=VALUE;KEY=VALUE`, what it sets beside the recipe, or `METHOD:KEY=VALUE;...`, what
it sets beside another method of `ape_jax.studies`; the recipe itself always comes first.
`--config.KEY=VALUE` is for all of them, the recipe included. Each is trained on the same views with
each seed. Printed are a Markdown table and one JSON line: R@10, mean of both directions, in
percent, in the training's style and in another maker's, as mean and standard deviation over seeds,
and the mean and standard deviation of the differences to the recipe, seed by seed. Cells that are
done in DIR are not run again.

With `--partitions`, each is trained on Twemoji of every numbered partition of the concepts instead
(`demo:twemoji:train@1`) and tested on the partition's `--split` in three makers' styles. No
concept of a `test@K` is in a `validation@K`: what is chosen on these may be tested on those, once.

With `--bench icons` they are icons, tested on validation names, or on test names in the makers'
sets of training and in unseen sets. With `--styles twemoji,openmoji` emoji of several styles are
trained on together.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import tempfile
from typing import Any

import ml_collections
import numpy as np

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.features.dataset import FeatureStore
from ape_jax.studies import study
from ape_jax.studies.config import StudyConfig
from ape_jax.terminal import tables as report
from ape_jax.training import loop

Recalls = dict[str, list[float]]


def main() -> None:
    """Trains every cell and prints the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("variants", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workdir", help="where cells are kept; a temporary directory")
    parser.add_argument("--partitions", help="numbers with commas between, instead of seeds")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--bench", choices=("emoji", "icons"), default="emoji")
    parser.add_argument("--styles", default="twemoji", help="of emoji, with commas between")
    flags, others = parser.parse_known_args()
    common = dict(text.removeprefix("--config.").split("=", 1) for text in others)
    data = [{}]
    if flags.partitions:
        data = [partition(number, flags) for number in flags.partitions.split(",")]
    runs = [(seed, keys) for keys in data for seed in range(flags.seeds)]
    store = FeatureStore()
    with tempfile.TemporaryDirectory(prefix="ape_jax_variants_") as temporary:
        folder = pathlib.Path(flags.workdir or temporary)
        base = base_config(flags.bench)
        names = ("", *flags.variants)
        found = {name: measure(name, base, common, runs, folder, store) for name in names}
    print(table(found), flush=True)
    print(json.dumps({"benchmark": "variants", "common": common, "rows": found}))


def base_config(bench: str) -> StudyConfig:
    """What all variants have in common: towers, views, the batch."""
    spec = "study:icons,validation" if bench == "icons" else "study:validation"
    return config_lib.resolve(recipes.read(spec), StudyConfig)


def partition(number: str, flags: argparse.Namespace) -> dict[str, Any]:
    """The pairs of a partition and its sets."""
    if flags.bench == "icons":
        sets = {"unseen-names": "test", "unseen-sets": "test_sets"}
        sets = sets if flags.split == "test" else {"unseen-names": "validation"}
        evals = {name: f"demo:icons:{split}@{number}" for name, split in sets.items()}
        return {"data.pairs": f"demo:icons:train@{number}", "data.eval": evals}
    sets = {"same-style": "twemoji", "style-shift": "openmoji", "third-style": "noto"}
    evals = {name: f"demo:{style}:{flags.split}@{number}" for name, style in sets.items()}
    pairs = "::".join(f"demo:{style}:train@{number}" for style in flags.styles.split(","))
    return {"data.pairs": pairs, "data.eval": evals}


def measure(
    variant: str,
    base: StudyConfig,
    common: dict[str, str],
    runs: list[tuple[int, dict[str, Any]]],
    folder: pathlib.Path,
    store: FeatureStore,
) -> Recalls:
    """R@10 of a variant on each set, a figure a run; a run is a seed, and the keys of its data."""
    recalls: Recalls = {}
    method, colon, keys = variant.partition(":")
    if not colon or "=" in method:  # A value may hold a colon.
        method, keys = "few_pairs", variant
    name = re.sub(r"[^\w.,=+-]", "_", variant) or "few_pairs"
    for number, (seed, data) in enumerate(runs):
        cell = {**config_lib.flatten(study.cell_config(method, seed, base)), **data}
        config = ml_collections.ConfigDict(config_lib.unflatten(cell))
        own = dict(text.split("=", 1) for text in keys.split(";") if text)
        config_lib.override(config, {**common, **own})
        resolved = config_lib.resolve(config)
        summary = loop.train_and_evaluate(resolved, folder / name / str(number), store)
        for each in resolved.data.eval:
            both = [summary[f"eval/{each}/{way}_r10"] for way in ("i2t", "t2i")]
            recalls.setdefault(each, []).append(round(100 * float(np.mean(both)), 3))
    return recalls


def table(found: dict[str, Recalls]) -> str:
    """The figures in Markdown."""
    first, sets = found[""], list(found[""])
    rows = []
    for name, recalls in found.items():
        row = [name.replace(";", ", ") or "few_pairs"]
        for each in sets:
            apart = np.subtract(recalls[each], first[each])
            row += [spread(recalls[each]), spread(apart) if name else ""]
        rows.append(row)
    return report.markdown(["variant", *(f"{s}{w}" for s in sets for w in ("", ", apart"))], rows)


def spread(values: list[float] | np.ndarray) -> str:
    """Mean and standard deviation."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.1f} ± {deviation:.1f}"


if __name__ == "__main__":
    main()
