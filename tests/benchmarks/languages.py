"""What the means of languages bring: few_pairs on the emoji's names in several languages.

    python tests/benchmarks/languages.py --workdir runs/languages [--seeds 3] [--part 1]
        [--split test] [--runs before,plain,means,all] [--config.KEY=VALUE ...]

Trained on Twemoji with names in eleven of the fourteen languages (Italian, Russian and Korean are
left out), read by a multilingual tower; tested on concepts that training never saw, in the same
drawing style and in OpenMoji's. One JSON line a seed: R@10, the mean of both ways and of the
languages, in percent, of the languages in training and of each that was left out.

before  few_pairs as it was: one layer, 20 epochs at a higher rate, without `data.language`
plain   the recipe, without `data.language`
means   the recipe with `data.language=language`
added   the same run, once means of the languages left out are made of the training concepts' names
        alone (`add_language`)
all     the recipe with `data.language`, trained on all fourteen

`--config.KEY=VALUE` is for all but `before`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

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


RUNS = ("before", "plain", "means", "all")
BEFORE = {"closed.noise": "0", "closed.text_l2": "0", "optim.lr": "3e-4", "latent.dropout": "0.3"}


def trained(args: argparse.Namespace, seed: int, name: str) -> ape_jax.Aligner:
    """One of `RUNS`."""
    settings = {"image": "demo:vit_s14", "text": args.text, "seed": seed}
    settings["language"] = "language" if name in ("means", "all") else ""
    spoken = "all" if name == "all" else "+".join(TRAINED)
    spec = f"demo:twemoji/{spoken}:train@{args.part}{args.slice}"
    config = recipes.read("few_pairs", arguments={**settings, "pairs": spec})
    config.image.size, config.image.layer, config.image.pooling = 112, 9, "cls+mean"
    config_lib.override(config, BEFORE if name == "before" else args.common)
    if name == "before":
        config.train.steps, config.optim.warmup = 90, 9
    if args.steps:
        config.train.steps, config.train.batch = args.steps, 32
        config.cache.views, config.optim.warmup = 2, 0
    path = Path(args.workdir) / name / f"seed{seed}"
    loop.train_and_evaluate(config_lib.resolve(config), path)
    return ape_jax.load(path, dtype="float32")


def recalls(model: ape_jax.Aligner, style: str, args: argparse.Namespace) -> dict[str, float]:
    """R@10 of each language on held-out concepts, the mean of both ways, in percent."""
    spec = f"demo:{STYLES[style]}/all:{args.split}@{args.part}{args.slice}"
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
    """By style: the mean over the languages in training, and each that was left out."""
    found = {}
    for style in STYLES:
        by_name = recalls(model, style, args)
        by_name["trained"] = float(np.mean([by_name[x] for x in TRAINED]))
        found |= {f"{style}/{x}": round(by_name[x], 2) for x in ("trained", *LEFT_OUT)}
    return found


def main() -> None:
    """Prints a line a seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--text", default="demo:me5_small")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", type=int, default=1)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--slice", default="", help="of train and test, such as [:100]")
    parser.add_argument("--steps", type=int, default=0, help="a short run on two views")
    args, others = parser.parse_known_args()
    args.common = dict(text.removeprefix("--config.").split("=", 1) for text in others)
    for seed in range(args.seeds):
        line: dict[str, Any] = {"seed": seed}
        for name in args.runs.split(","):
            model = trained(args, seed, name)
            line[name] = figures(model, args)
            if name == "means":
                with_names(model, args)
                line["added"] = figures(model, args)
        print(json.dumps(line), flush=True)


def with_names(model: ape_jax.Aligner, args: argparse.Namespace) -> None:
    """Adds the languages left out, by names of the concepts that training has, undrawn."""
    for name in LEFT_OUT:
        spec = f"demo:twemoji/{name}:train@{args.part}{args.slice}"
        model.add_language(name, [t for pair in open_pairs(spec) for t in pair.captions])


if __name__ == "__main__":
    main()
