"""Three lines of Python from a DataFrame to a model: how long they take, features included.

    python tests/benchmarks/fit.py [--pairs 300]

Prints one JSON line; progress goes to stderr. Images of demo:twemoji with their first names in a
pandas DataFrame, demo:vit_s14 and demo:minilm, everything else as it is by default (112 px follows
from the images); the feature cache is empty. The model then classifies and retrieves once, which
compiles. `load` is the machine's load average before, which says whether the figures are worth it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time

import pandas as pd

import ape_jax
from ape_jax.demo.emoji import pairs as emoji


def main() -> None:
    """Measures once, in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=300)
    count = parser.parse_args().pairs
    found = [(image, texts[0]) for image, texts, *_ in emoji.read_pairs("twemoji", "en", "train")]
    table = pd.DataFrame(found[:count], columns=["image", "caption"])
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as cache:
        start = time.monotonic()
        model = ape_jax.fit(image="demo:vit_s14", text="demo:minilm", pairs=table, cache_dir=cache)
        fitted = time.monotonic()
        images = list(table["image"][:32])
        odds = model.classify(images, ["an animal", "a flag", "food"])
        classified = time.monotonic()
        hits = model.retrieve(["something sweet"], images, k=3)
        end = time.monotonic()
    measured = {
        "pairs": count,
        "fit_s": round(fitted - start, 1),
        "classify_s": round(classified - fitted, 1),
        "retrieve_s": round(end - classified, 1),
        "cores": os.cpu_count(),
        "load": round(load, 1),
        "views": model.config.cache.views,
        "size": model.config.image.size,
        "steps": model.summary["step"],
        "answers": [list(odds.shape), len(hits[0])],
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
