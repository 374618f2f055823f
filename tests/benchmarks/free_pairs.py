"""What do the rows of a supervised tower's classifier add to few pairs?

    python tests/benchmarks/free_pairs.py [--pairs 64,256,0] [--seeds 1,2,3] [--weights 0.5]
        [--classes demo:icons:train@5] [--drawings 5] [--epochs 10] [--batch 256]
        [--methods "few;free"] [--workdir DIR] [--config.KEY=VALUE ...]

The demo has no supervised tower, so one is made: a linear softmax classifier is trained on the demo
tower's features (its output, "cls+mean") of the icons of partition 5 (`--classes` names others), a
class for each name with `--drawings` or more drawings; it is written beside the tower as
transformers saves Dinov2ForImageClassification. `few_pairs` is then trained on samples of the emoji
of the same partition, without free pairs (`few`) and with them (`free`, each weight), and so is CCA
alone (`solved`). It prints a Markdown table and one JSON line; progress goes to stderr.

R@10, in percent, is the mean of both directions, on other concepts of the same style (`same`) and
on those in another maker's drawings (`shift`). `--pairs 0` takes all pairs; a seed gives another
sample and other heads.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float32, Int64
from safetensors.numpy import load_file, save_file

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.demo.towers import assets
from ape_jax.features.dataset import FeatureStore
from ape_jax.runs import build
from ape_jax.terminal import tables as report
from ape_jax.training import loop
from ape_jax.training import run as run_lib
from ape_jax.training.input import opened

SETS = ("same", "shift")
SIZE = 112  # Pixels a side, of icons and emoji.
BATCH = 1024
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-2


def main() -> None:
    """Makes the tower, runs every cell, and prints the table and the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", default="64,256,0")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--weights", default="0.5")
    parser.add_argument("--classes", default="demo:icons:train@5")
    parser.add_argument("--drawings", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=256, help="free pairs of a step")
    parser.add_argument("--methods", default="", help="some of them, with ; between")
    parser.add_argument("--workdir", help="where runs are kept; a temporary directory")
    flags, overrides = parser.parse_known_args()
    chosen = methods([float(x) for x in flags.weights.split(",")], flags.batch)
    names = flags.methods.split(";") if flags.methods else list(chosen)
    with tempfile.TemporaryDirectory(prefix="ape_jax_free_pairs_") as temporary:
        folder, store = pathlib.Path(flags.workdir or temporary), FeatureStore()
        taught = flags.classes, flags.drawings, flags.epochs
        made = supervised(folder / "tower", *taught, overrides)
        rows = []
        for count in map(int, flags.pairs.split(",")):
            for name in names:
                found = []
                for seed in map(int, flags.seeds.split(",")):
                    config = _config(folder / "tower", count, seed, chosen[name], overrides)
                    path = folder / f"{count or 'all'}" / name.replace(", ", "-") / str(seed)
                    summary = loop.train_and_evaluate(config, path, store)
                    found.append([_recall(summary, which) for which in SETS])
                rows.append(_row(name, count, found))
    print(_table(rows), flush=True)
    print(json.dumps({"benchmark": "free_pairs", "classifier": made, "rows": rows}))


def methods(weights: list[float], batch: int) -> dict[str, Mapping[str, Any]]:
    """The keys of each row of the table."""
    solved = {"method": "cca", "start.method": "none", "latent.dropout": 0.0}
    found: dict[str, Mapping[str, Any]] = {"few, solved": solved, "few": {}}
    for weight in weights:
        name = "free" if len(weights) == 1 else f"free {weight:g}"
        found[f"{name}, solved"] = {**solved, "classifier.weight": weight}
        found[name] = {"classifier.weight": weight, "classifier.batch": batch}
    return found


def _recipe(image: str, pairs: str, seed: int, overrides: list[str]) -> Any:
    """The config of few_pairs; icons are encoded once and clean, as the emoji are."""
    config = recipes.read(
        f"few_pairs:image={image},text=demo:minilm,pairs={pairs},views=1,seed={seed}"
    )
    config.image.pooling, config.image.size = "cls+mean", SIZE
    given = (text.removeprefix("--config.").split("=", 1) for text in overrides)
    config_lib.override(config, dict(given))
    return config


def _config(
    tower: pathlib.Path, count: int, seed: int, keys: Mapping[str, Any], overrides: list[str]
) -> config_lib.Config:
    config = _recipe(str(tower), "demo:twemoji:train@5", seed, overrides)
    config.data.sample = count
    config.data.eval = {"same": "demo:twemoji:test@5", "shift": "demo:openmoji:test@5"}
    return config_lib.resolve({**config_lib.flatten(config), **keys})


def supervised(
    folder: pathlib.Path, pairs: str, drawings: int, epochs: int, overrides: list[str]
) -> dict[str, Any]:
    """Writes the demo tower with a classifier of icons.

    Args:
      folder: for the tower's files; one that is there already is taken as it is.
      pairs: drawings, of which those of one caption are a class.
      drawings: the fewest of a class.
      epochs: of training the classifier.
      overrides: of the config, such as the cache's folder.

    Returns:
      How many classes and drawings it was trained on, and its accuracy on these, in percent.
    """
    record = folder / "classifier.json"
    if record.is_file():
        return json.loads(record.read_text())
    config = _recipe("demo:vit_s14", pairs, 0, overrides)
    config.data.eval, config.data.split = {}, 0.0
    resolved = config_lib.resolve(config)
    resolved, sources = opened.settled(resolved)
    run = run_lib.prepare(resolved, sources, build.load_towers(resolved), FeatureStore())
    captions = run.dataset.captions
    first = captions.offsets[:-1]  # An icon has one caption.
    text = np.asarray(captions.text_index)[first]
    classes = np.flatnonzero(np.bincount(text, minlength=len(captions.texts)) >= drawings)
    members = np.flatnonzero(np.isin(text, classes))
    labels = np.searchsorted(classes, text[members])
    features = np.asarray(run.dataset.pooled[members], np.float32)[:, 0]
    weight, bias, accuracy = probe(features, labels.astype(np.int64), len(classes), epochs)
    _write(folder, weight, bias, [captions.texts[int(i)] for i in classes])
    made = {"classes": len(classes), "drawings": len(members), "accuracy": accuracy}
    record.write_text(json.dumps(made))
    return made


def probe(
    features: Float32[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"], classes: int, epochs: int
) -> tuple[Float32[np.ndarray, "c d"], Float32[np.ndarray, " c"], float]:
    """Trains a linear softmax classifier; returns its rows, its bias and its accuracy, in percent.

    It is trained on standardised features, and given for features as they are.
    """
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    x, y = jnp.asarray((features - mean) / std), jnp.asarray(labels)
    batch = min(BATCH, len(features))
    steps = max(epochs * len(features) // batch, 1)
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    optimizer = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
    width = features.shape[1]
    params = {"kernel": jnp.zeros((classes, width)), "bias": jnp.zeros(classes)}

    def loss(params: Any, rows: Any) -> Any:
        logits = x[rows] @ params["kernel"].T + params["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    @jax.jit
    def step(params: Any, state: Any, rows: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state, params)
        return optax.apply_updates(params, updates), state

    state, rng = optimizer.init(params), np.random.default_rng(0)
    for _ in range(steps):
        params, state = step(params, state, rng.integers(0, len(features), batch))
    kernel, bias = np.asarray(params["kernel"], np.float64), np.asarray(params["bias"])
    guessed = [
        np.asarray(jnp.argmax(x[i : i + BATCH] @ params["kernel"].T + params["bias"], axis=1))
        for i in range(0, len(features), BATCH)
    ]
    accuracy = round(100 * float((np.concatenate(guessed) == labels).mean()), 1)
    print(f"classifier: {classes} classes, {accuracy} % of {len(features)}", file=sys.stderr)
    rows = kernel / std
    return rows.astype(np.float32), (bias - rows @ mean).astype(np.float32), accuracy


def _write(folder: pathlib.Path, weight: np.ndarray, bias: np.ndarray, names: list[str]) -> None:
    """The demo tower's files, with the classifier where transformers has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(assets.tower_dir("vit_s14"), folder)
    (weights,) = folder.glob("*.safetensors")
    tensors = {**load_file(weights), "classifier.weight": weight, "classifier.bias": bias}
    save_file(tensors, weights, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Dinov2ForImageClassification"]
    # A comma parts the names of a class, and a caption is one name.
    config["id2label"] = {str(i): name.replace(",", " ") for i, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def _recall(summary: Mapping[str, Any], name: str) -> float:
    both = (summary[f"eval/{name}/{way}_r10"] for way in ("i2t", "t2i"))
    return round(100 * float(np.mean(list(both))), 2)


def _row(name: str, count: int, found: list[list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": name, "pairs": count or "all"}
    for k, which in enumerate(SETS):
        each = [values[k] for values in found]
        row |= {which: round(float(np.mean(each)), 2), f"{which}_each": each}
    return row


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [
        [str(row["pairs"]), row["method"]]
        + [f"{row[which]:.1f} ± {np.std(row[f'{which}_each']):.1f}" for which in SETS]
        for row in rows
    ]
    return report.markdown(["pairs", "method", *SETS], cells)


if __name__ == "__main__":
    main()
