"""What the means of languages bring: few_pairs on the emoji's names in several languages.

    python tests/benchmarks/languages.py --workdir runs/languages [--seeds 3] [--part 1]

Trained on Twemoji with names in eleven of the fourteen languages (Italian, Russian and Korean are
left out), read by a multilingual tower; tested on concepts that training never saw, in the same
drawing style and in OpenMoji's. One JSON line a seed: R@10, the mean of both ways and of the
languages, in percent, with `data.language=language` and without; of the languages in training, of
those left out, and of those left out once their means are made of the training concepts' names
alone (`add_language`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import ape_jax
from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.data.options import Reading
from ape_jax.data.specs import open_pairs
from ape_jax.demo.emoji.languages import LANGUAGES
from ape_jax.evaluators import languages
from ape_jax.training import loop

LEFT_OUT = ("it", "ru", "ko")
TRAINED = tuple(name for name in LANGUAGES if name not in LEFT_OUT)
STYLES = {"same-style": "twemoji", "style-shift": "openmoji"}
BY_LANGUAGE = Reading(columns={"language": ("language",)})


def trained(args: argparse.Namespace, seed: int, language: str) -> ape_jax.Aligner:
    """The run of a seed, with means of languages or without."""
    settings = {"image": "demo:vit_s14", "text": args.text, "seed": seed, "language": language}
    spec = f"demo:twemoji/{'+'.join(TRAINED)}:train@{args.part}{args.slice}"
    config = recipes.read("few_pairs", arguments={**settings, "pairs": spec})
    config.image.size, config.image.layer, config.image.pooling = 112, 9, "cls+mean"
    if args.steps:
        config.train.steps, config.train.batch = args.steps, 32
        config.cache.views, config.optim.warmup = 2, 0
    path = Path(args.workdir) / f"{'means' if language else 'plain'}/seed{seed}"
    loop.train_and_evaluate(config_lib.resolve(config), path)
    return ape_jax.load(path, dtype="float32")


def recalls(model: ape_jax.Aligner, style: str, args: argparse.Namespace) -> dict[str, float]:
    """R@10 of each language on held-out concepts, the mean of both ways, in percent."""
    spec = f"demo:{STYLES[style]}/all:test@{args.part}{args.slice}"
    pairs = open_pairs(spec, reading=BY_LANGUAGE)
    texts = [text for pair in pairs for text in pair.captions]
    spoken = np.array([name for pair in pairs for name in pair.languages])
    names, index = np.unique(spoken, return_inverse=True)
    zimg = model.encode_image([pair.image for pair in pairs], progress=False)
    options = {"language": spoken.tolist()} if model.languages else {}
    ztxt = model.encode_text(texts, progress=False, **options)
    image_index = np.repeat(np.arange(len(pairs)), [len(pair.captions) for pair in pairs])
    found = languages.by_language(zimg, ztxt, image_index, names.tolist(), index)
    return {n: 50 * (m["i2t_r10"] + m["t2i_r10"]) for n, m in found.items()}


def figures(model: ape_jax.Aligner, args: argparse.Namespace) -> dict[str, float]:
    """Means over languages, by style and by whether training saw them."""
    found = {}
    for style in STYLES:
        by_name = recalls(model, style, args)
        for group, names in (("trained", TRAINED), ("left_out", LEFT_OUT)):
            found[f"{style}/{group}"] = round(float(np.mean([by_name[x] for x in names])), 2)
    return found


def main() -> None:
    """Prints a line a seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--text", default="demo:me5_small")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", type=int, default=1)
    parser.add_argument("--slice", default="", help="of train and test, such as [:100]")
    parser.add_argument("--steps", type=int, default=0, help="a short run on two views")
    args = parser.parse_args()
    for seed in range(args.seeds):
        plain, means = (trained(args, seed, language) for language in ("", "language"))
        line = {"seed": seed, "plain": figures(plain, args), "means": figures(means, args)}
        for name in LEFT_OUT:  # Names of the concepts that training has, without their drawings.
            spec = f"demo:twemoji/{name}:train@{args.part}{args.slice}"
            means.add_language(name, [t for pair in open_pairs(spec) for t in pair.captions])
        added = figures(means, args)
        line["added"] = {key: value for key, value in added.items() if "left_out" in key}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
