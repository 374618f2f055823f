"""How much of the gap between few and all pairs do unpaired drawings and names close?

    python tests/benchmarks/unpaired.py [--validation] [--partitions 1,2,3] [--pairs 512]
        [--klot 0.1] [--match 1] [--methods "few;match;all"] [--workdir DIR]
        [--config.KEY=VALUE ...]

trains `few_pairs` on a sample of the Twemoji pairs of each numbered partition of the demo, with one
clean view and three layers joined, and with all of them; in between stand what unpaired data can
bring: the drawings and names of the whole training set, of which the sample's partners are known
and no others. Rows that are `solved` are CCA alone. It prints a Markdown table and one JSON line;
progress goes to stderr.

R@10, in percent, is the mean of both directions, on other concepts of the same style (`same`) and
on those in another maker's drawings (`shift`). `closed` is the share of the gap between few and all
pairs that a row closes. A partition gives other concepts and another sample.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.features.dataset import FeatureStore
from ape_jax.terminal import tables as report
from ape_jax.training import loop

SETS = ("same", "shift")


def main() -> None:
    """Runs every method on every partition, and prints the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--partitions", default="1,2,3")
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--klot", type=float, default=0.1)
    parser.add_argument("--match", type=float, default=1.0)
    parser.add_argument("--methods", default="", help="some of them, with ; between")
    parser.add_argument("--workdir", help="where runs are kept; a temporary directory")
    flags, overrides = parser.parse_known_args()
    chosen = methods(flags.pairs, flags.klot, flags.match)
    names = flags.methods.split(";") if flags.methods else list(chosen)
    with tempfile.TemporaryDirectory(prefix="ape_jax_unpaired_") as temporary:
        folder, store = pathlib.Path(flags.workdir or temporary), FeatureStore()
        found: dict[str, list[list[float]]] = {name: [] for name in names}
        for number in map(int, flags.partitions.split(",")):
            for name in names:
                config = _config(number, flags.validation, chosen[name], overrides)
                path = folder / f"partition{number}" / name.replace(", ", "-").replace(" ", "-")
                summary = loop.train_and_evaluate(config, path, store)
                found[name].append([_recall(summary, which) for which in SETS])
    rows = _rows(found)
    print(_table(rows), flush=True)
    print(json.dumps({"benchmark": "unpaired", "pairs": flags.pairs, "rows": rows}))


def methods(pairs: int, klot: float, match: float) -> dict[str, Mapping[str, Any]]:
    """The keys of each row of the table."""
    few: dict[str, Any] = {"data.sample": pairs}
    images, texts = ({f"data.{name}": "PAIRS"} for name in ("images", "texts"))
    solved: dict[str, Any] = {"method": "cca", "start.method": "none"}
    both = {**few, **images, **texts}
    return {
        "few, solved": {**few, **solved, "latent.dropout": 0.0},
        "match, solved": {**both, **solved, "latent.dropout": 0.0, "unpaired.match": match},
        "all, solved": {**solved, "latent.dropout": 0.0},
        "few": few,
        "statistics": {**few, **images, "unpaired.statistics": True},
        "match": {**both, "unpaired.match": match},
        "klot": {**both, "unpaired.klot": klot},
        "match, klot": {**both, "unpaired.match": match, "unpaired.klot": klot},
        "all": {},
    }


def _config(
    number: int, validation: bool, keys: Mapping[str, Any], overrides: list[str]
) -> config_lib.Config:
    pairs = f"demo:twemoji:train@{number}"
    config = recipes.read(
        f"few_pairs:image=demo:vit_s14,text=demo:minilm,pairs={pairs},views=1,seed={number}"
    )
    split = f"{'validation' if validation else 'test'}@{number}"
    config.image.layer, config.image.pooling, config.image.size = (9, 11, -1), "cls+mean", 112
    config.data.eval = {"same": f"demo:twemoji:{split}", "shift": f"demo:openmoji:{split}"}
    given = (text.removeprefix("--config.").split("=", 1) for text in overrides)
    config_lib.override(config, dict(given))
    flat = {**config_lib.flatten(config), **keys}
    return config_lib.resolve({k: pairs if v == "PAIRS" else v for k, v in flat.items()})


def _recall(summary: Mapping[str, Any], name: str) -> float:
    both = (summary[f"eval/{name}/{way}_r10"] for way in ("i2t", "t2i"))
    return round(100 * float(np.mean(list(both))), 2)


def _rows(found: Mapping[str, list[list[float]]]) -> list[dict[str, Any]]:
    mean = {name: np.mean(values, axis=0) for name, values in found.items()}
    rows = []
    for name, values in found.items():
        row: dict[str, Any] = {"method": name}
        for k, which in enumerate(SETS):
            row[which] = round(float(mean[name][k]), 2)
            row[f"{which}_each"] = [value[k] for value in values]
            few, every = (f"{end}, solved" if "solved" in name else end for end in ("few", "all"))
            if {few, every} <= mean.keys():
                gap = mean[every][k] - mean[few][k]
                row[f"{which}_closed"] = round(float((mean[name][k] - mean[few][k]) / gap), 3)
        rows.append(row)
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    head = ["method", *(f"{which}{x}" for which in SETS for x in ("", " closed"))]
    cells = [
        [row["method"]]
        + [
            text
            for which in SETS
            for text in (
                f"{row[which]:.1f} ± {np.std(row[f'{which}_each']):.1f}",
                f"{row[f'{which}_closed']:.0%}" if f"{which}_closed" in row else "",
            )
        ]
        for row in rows
    ]
    return report.markdown(head, cells)


if __name__ == "__main__":
    main()
