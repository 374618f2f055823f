"""The protocol of STRUCTURE and SOTAlign with our methods, and published figures beside.

    python tests/benchmarks/yardstick.py --workdir DIR [--arguments image=TOWER,pairs=PAIRS,...]
        [--imagenet IMAGES] [--classnames imagenet] [--templates openai]

runs the study of the recipe `yardstick` with its arguments (towers, pairs, sizes, seeds), then
zero-shot classification with each of its models where labelled images are named, and prints both as
Markdown: means over seeds, in percent. Runs that are done are not repeated.

Published figures are those that could be looked up, with their source. Of STRUCTURE's and
SOTAlign's own tables none could be read here, so none is copied: compare with Tables 1 and 2 of
arXiv 2506.16895 and with arXiv 2602.23353.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.commands import evaluate
from ape_jax.storage import atomic, files
from ape_jax.studies import cells, study, tables
from ape_jax.studies.config import StudyConfig
from ape_jax.studies.methods import METHODS
from ape_jax.terminal import tables as report

# (what, pairs, figure, source)
PUBLISHED = (
    (
        "DINOv2 and all-roberta-large, projectors trained (Freeze-Align)",
        "20 M",
        "ImageNet zero-shot top-1 76",
        "arXiv 2409.19425, abstract",
    ),
    (
        "STRUCTURE's term and choice of layers, mean of 24 sets",
        "tens of thousands",
        "+51.6 % (classification) and +91.8 % (retrieval), relative to the same method without",
        "arXiv 2506.16895, abstract",
    ),
    (
        "LilT, layerwise adapters (DeiT-B/16, SimCSE BERT-base)",
        "591,753",
        "Flickr30k text R@1 56.8, image R@1 41.7",
        "arXiv 2303.11866",
    ),
    (
        "LiT `coco_B16B` (AugReg ViT-B/16, BERT-base)",
        "5,000 steps of 4,096",
        "ImageNet zero-shot top-1 20.7; COCO i2t R@1 47.2, t2i R@1 32.1",
        "big_vision, `configs/proj/image_text`",
    ),
)


def published() -> str:
    """The published figures as a Markdown table."""
    return report.markdown(
        ["published", "pairs", "figures", "source"], [list(r) for r in PUBLISHED]
    )


def classify(
    config: StudyConfig, workdir: pathlib.Path, data: str, classnames: str, templates: str
) -> str:
    """Zero-shot top-1 of every model of the study, as a Markdown table by size.

    Args:
      config: the study's.
      workdir: where it ran.
      data: labelled images.
      classnames: as `ape-jax evaluate --classnames`.
      templates: as `--templates`.
    """
    methods = [name for name in config.study.methods if METHODS[name].overrides is not None]
    sizes = config.study.sizes or (0,)
    rows = []
    for method in methods:
        row = [METHODS[method].title]
        for size in sizes:
            places = cells.directories_of(config, workdir, method, size)
            found = [_top1(cell, data, classnames, templates) for cell in places]
            row.append(_shown(found))
        rows.append(row)
    return report.markdown(["zero-shot top-1", *(f"{s or 'all'} pairs" for s in sizes)], rows)


def _top1(cell: pathlib.Path, data: str, classnames: str, templates: str) -> float:
    """Kept beside the run: a thousand classes take minutes."""
    asked = {"data": data, "classnames": classnames, "templates": templates}
    try:
        kept = files.read_json(cell / "zeroshot.json")
        if {key: kept.get(key) for key in asked} == asked:
            return float(kept["top1"])
    except FileNotFoundError:
        pass
    figures, _ = evaluate.zeroshot(str(cell), data, classnames, templates)
    top1 = float(figures["eval/zeroshot/top1"])
    atomic.write_json(cell / "zeroshot.json", {**asked, "top1": top1})
    return top1


def _shown(values: list[float]) -> str:
    text = f"{100 * np.mean(values):.1f}"
    return text if len(values) == 1 else f"{text} ± {100 * np.std(values, ddof=1):.1f}"


def run(
    arguments: str | Mapping[str, Any],
    workdir: pathlib.Path,
    imagenet: str = "",
    classnames: str = "imagenet",
    templates: str = "openai",
    changes: Mapping[str, Any] | None = None,
) -> str:
    """Runs the study and the zero-shot part, and makes the report.

    Args:
      arguments: of the recipe.
      workdir: where the runs go.
      imagenet: labelled images; without them there is no zero-shot part.
      classnames: of them.
      templates: of the prompts.
      changes: other values by config key, such as `{"train.steps": 8}`.
    """
    made = (
        recipes.read("yardstick", arguments=arguments) if not isinstance(arguments, str) else None
    )
    made = recipes.read(f"yardstick:{arguments}") if made is None else made
    config = config_lib.resolve(made, StudyConfig).replace(dict(changes or {}))
    parts = [tables.tables(study.run_study(config, workdir))]
    if imagenet:
        parts.append(classify(config, workdir, imagenet, classnames, templates))
    return "\n\n".join([*parts, published()])


def main() -> None:
    """Reads the arguments, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--arguments", default="")
    parser.add_argument("--imagenet", default="")
    parser.add_argument("--classnames", default="imagenet")
    parser.add_argument("--templates", default="openai")
    asked = parser.parse_args()
    print(run(asked.arguments, asked.workdir, asked.imagenet, asked.classnames, asked.templates))


if __name__ == "__main__":
    main()
