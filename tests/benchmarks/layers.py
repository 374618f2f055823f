"""How good a choice of layers by the data is, against every reading in hindsight.

    python -m tests.benchmarks.layers [--pairs demo:twemoji:train@1 ...] [--tests ...]

For each training set, one pass over it gives the vectors of all layers and `choose` takes one
reading of each tower. CCA is then fitted with every reading that was tried, on all training pairs,
and retrieves in each test set. One JSON line: R@10 of the choice, of the output alone, and of the
best single layer and the best of all in hindsight, with the difference to the choice and its
interval of 95 % (a bootstrap over test images, then over training sets); seconds of the pass and
of the scores.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.align.closed_form import Paired, cca
from ape_jax.align.layers import Question, Reading, choose
from ape_jax.align.layers.halves import RANK
from ape_jax.config import Config
from ape_jax.data.options import Reading as Options
from ape_jax.data.specs import open_pairs
from ape_jax.errors import UserError
from ape_jax.features.dataset import FeatureStore
from ape_jax.training.input import opened
from ape_jax.training.layers.question import ask

OPEN = ("image.layer", "text.layer", "image.pooling", "text.pooling")
Pair = tuple[Reading, Reading]


def config_of(pairs: str, image: str, text: str) -> Config:
    """few_pairs with all layers and poolings open."""
    made = recipes.read("few_pairs", "bench", {"image": image, "text": text, "pairs": pairs})
    return config_lib.resolve({**config_lib.flatten(made), **dict.fromkeys(OPEN, "auto")})


def hits(
    train: Question, tests: list[Question], pair: Pair, l2: float, power: float
) -> list[np.ndarray]:
    """Share of both directions that find a match among ten, by image of each test set."""
    x = rotated(*(q.text.vectors.read(pair[1]) for q in (train, *tests)))
    images = [q.image.vectors.read(pair[0]) for q in (train, *tests)]
    parts = train.image.vectors.parts(pair[0]) if train.block_diagonal else ()
    ends = np.cumsum(parts)[:-1] if parts else []
    blocks = [rotated(*block) for block in zip(*(np.split(y, ends, axis=1) for y in images))]
    y = [np.concatenate(columns, axis=1) for columns in zip(*blocks)]
    indices = {"text_index": train.text_index, "image_index": train.image_index}
    parts = tuple(block[0].shape[1] for block in blocks)
    try:
        paired = Paired(text=x[0], image=y[0][:, None], **indices)
        fit = cca(paired, l2, power=power, parts=parts)
    except UserError:  # A class token before the first block.
        return [np.zeros(len(z)) for z in y[1:]]
    made = zip(tests, x[1:], y[1:])
    return [_hits(q, unit(fit.image(image)), unit(fit.text(text))) for q, text, image in made]


def rotated(train: np.ndarray, *tests: np.ndarray) -> list[np.ndarray]:
    """Vectors standardised by the training set, in its first principal directions."""
    mean, std = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-6)
    rows = [((x - mean) / std).astype(np.float64) for x in (train, *tests)]
    wide = train.shape[1] > len(train)
    gram = rows[0] @ rows[0].T if wide else rows[0].T @ rows[0]
    values, vectors = (x[..., -RANK:] for x in np.linalg.eigh(gram))
    kept = values > 1e-9 * values[-1]
    directions = vectors[:, kept]
    if wide:
        directions = rows[0].T @ (directions / np.sqrt(values[kept]))
    return [x @ directions for x in rows]


def unit(z: np.ndarray) -> np.ndarray:
    """Rows at unit length."""
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)


def _hits(test: Question, zimg: np.ndarray, ztxt: np.ndarray) -> np.ndarray:
    cosine = zimg @ ztxt.T
    mine = np.zeros(cosine.shape, bool)
    mine[test.image_index, test.text_index] = True
    own = np.where(mine, cosine, -np.inf)
    i2t = 1 + (cosine > own.max(axis=1, keepdims=True)).sum(axis=1) <= 10
    t2i = 1 + (cosine > own.max(axis=0)).sum(axis=0) <= 10
    counts = np.bincount(test.image_index, minlength=len(cosine))
    of_image = np.bincount(test.image_index, weights=t2i[test.text_index], minlength=len(cosine))
    return (i2t + of_image / counts) / 2


def one(spec: str, tests: list[str], image: str, text: str) -> dict:
    """The choice on one training set, and every reading on each test set."""
    config, sources = opened.settled(config_of(spec, image, text))
    store, began = FeatureStore(), time.monotonic()
    train = ask(config, sources.train, store)
    encoded = time.monotonic()
    choice = choose(train, seed=config.seed, say=lambda line: print(line, flush=True))
    ended = time.monotonic()
    tried: dict[Pair, tuple[float, float]] = {}
    for reading, scores in choice.scores["image"].items():
        tried[reading, train.text.usual] = scores.l2, scores.power
    for reading, scores in choice.scores["text"].items():
        tried[choice.image, reading] = scores.l2, scores.power
    reading = Options.of(config.data)
    asked = [ask(config, open_pairs(x, key="--tests", reading=reading), store) for x in tests]
    by_pair = {pair: hits(train, asked, pair, *grid) for pair, grid in tried.items()}
    found = {name: {p: x[i] for p, x in by_pair.items()} for i, name in enumerate(tests)}
    return {
        "chosen": (choice.image, choice.text),
        "usual": (train.image.usual, train.text.usual),
        "hits": found,
        "seconds": {"pass": encoded - began, "scores": ended - encoded},
        "record": choice.record(),
    }


def summary(runs: list[dict], place: int) -> dict:
    """R@10 on one test set of each run, and differences with their intervals."""
    found = [list(made["hits"].values())[place] for made in runs]
    is_single = {pair: all(len(x.layers) == 1 for x in pair) for made in found for pair in made}
    mean = {
        pair: np.mean([made[pair].mean() for made in found])
        for pair in found[0]
        if all(pair in made for made in found)
    }
    singles = [pair for pair in mean if is_single[pair]]
    best = {"single": max(singles, key=mean.__getitem__), "any": max(mean, key=mean.__getitem__)}
    chosen = [made[run["chosen"]] for made, run in zip(found, runs)]
    row: dict[str, Any] = {"chosen": 100 * float(np.mean([x.mean() for x in chosen]))}
    for name, pair in {"usual": runs[0]["usual"], **best}.items():
        gaps = [mine - made[pair] for mine, made in zip(chosen, found)]
        row[name] = 100 * float(np.mean([made[pair].mean() for made in found]))
        low, high = np.percentile(resampled(gaps), [2.5, 97.5])
        row[f"{name}_is"] = " | ".join(map(str, pair))
        row[f"chosen_minus_{name}"] = [round(100 * float(x), 2) for x in (low, high)]
    return {key: round(x, 2) if isinstance(x, float) else x for key, x in row.items()}


def resampled(gaps: list[np.ndarray], count: int = 2000) -> np.ndarray:
    """Means of a bootstrap over sets, and over the images of each."""
    rng = np.random.default_rng(0)
    return np.array(
        [
            np.mean(
                [
                    rng.choice(gaps[i], len(gaps[i])).mean()
                    for i in rng.integers(len(gaps), size=len(gaps))
                ]
            )
            for _ in range(count)
        ]
    )


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--pairs", nargs="+", default=[f"demo:twemoji:train@{k}" for k in (1, 2, 3)]
    )
    parser.add_argument("--styles", nargs="+", default=["twemoji", "openmoji"])
    parser.add_argument("--image", default="demo:vit_s14")
    parser.add_argument("--text", default="demo:minilm")
    asked = parser.parse_args()
    runs = []
    for spec in asked.pairs:
        tests = [f"demo:{style}:test@{spec.rpartition('@')[2]}" for style in asked.styles]
        runs.append(one(spec, tests, asked.image, asked.text))
        print(json.dumps({"of": spec, "chosen": list(map(str, runs[-1]["chosen"]))}), flush=True)
    out = {
        "chosen": [list(map(str, made["chosen"])) for made in runs],
        "recall_at_10": {style: summary(runs, i) for i, style in enumerate(asked.styles)},
        "seconds": [{k: round(v, 1) for k, v in made["seconds"].items()} for made in runs],
    }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
