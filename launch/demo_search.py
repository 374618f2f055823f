"""Uses what the demo has trained: finds OpenMoji drawings, none seen in training, by meaning."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from ape_jax import load
from ape_jax.demo.emoji import pairs as emoji

QUERIES = ("something sweet to eat", "an animal that lives in the sea", "public transport")
SETS = {"same-style": "in the drawing style of training", "style-shift": "in a style never seen"}


def main() -> None:
    """Says how well the best model does, what it finds, and what to look at next."""
    workdir = Path(sys.argv[1])
    summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
    trained = [name for name in summary["methods"] if (workdir / name / "seed0").is_dir()]
    best = max(trained, key=lambda name: float(np.mean([_recall(summary, name, s) for s in SETS])))
    model = load(workdir / best / "seed0")
    print(f"The best of the table is {best}: two towers that never met, aligned on 1,190 emoji.")
    print("For a caption, its image is among the first 10 of 186 that training never saw")
    for name, words in SETS.items():
        found, chance = (_recall(summary, method, name, "t2i") for method in (best, "chance"))
        print(f"  {words}: {100 * found:.0f} times of 100 (by chance {100 * chance:.0f})")
    pairs = emoji.read_pairs("openmoji", "en", "test")
    hits = model.retrieve(QUERIES, [image for image, *_ in pairs], k=5)
    print("What it finds there for words of your own, by the drawings' names:")
    for query, found in zip(QUERIES, hits):
        print(f"  {query}: {', '.join(pairs[i][1][0] for i, _ in found)}")
    print("To look at it, open this file in a browser:")
    print(f"  {model.report()}")
    print("To do the same with your images and captions:")
    print("  ape-jax train --config few_pairs:image=hf:facebook/dinov2-small,\\")
    print("text=hf:sentence-transformers/all-MiniLM-L6-v2,pairs=pairs.csv --workdir runs/mine")


def _recall(summary: dict, method: str, name: str, *ways: str) -> float:
    """R@10, the mean over seeds and over directions, both unless one is named."""
    rows = summary["methods"][method][name]
    return float(np.mean([rows[f"{way}_r10"] for way in ways or ("i2t", "t2i")]))


if __name__ == "__main__":
    main()
