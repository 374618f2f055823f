"""The decision table of docs/how-to/choose-a-recipe.md, made of results of studies.

    python tests/benchmarks/decision.py [--write]

reads docs/results/fewer (128 to 1,190 emoji) and docs/results/icons (1,024 to 61 thousand icons),
or the folders that are named, and prints the table; `--write` puts it into the page. A method's
score is R@10, the mean of both ways, and of the two sets: of the kind of training, and of another
kind (another drawing style, other makers). A method is level with the best

* if the study has intervals with the best as its reference, and on no set the best is above it by
  more than the interval;
* else, if it is behind by no more than such a test can tell: 1.96 standard errors of a share of as
  many images as both sets have, or twice the spread over seeds, whichever is more.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/choose-a-recipe.md"
RESULTS = (ROOT / "docs/results/fewer", ROOT / "docs/results/icons")
BEGIN, END = "<!-- decision table -->\n\n", "\n\n<!-- end of decision table -->"
# What a user writes for a method; whatever is not here is a part of the study, not a choice.
WRITTEN = {
    "cca": "CCA",
    "ridge": "ridge",
    "procrustes": "Procrustes",
    "ape": "`ape`",
    "few_pairs": "`few_pairs`",
    "few_pairs+lookup": "`few_pairs` with a lookup table",
    "cca_start+token_mlp": "`few_pairs` as it was",
    "cca_start+token_mlp+lookup": "`few_pairs` as it was with a lookup table",
    "lit": "`lit`",
    "clip": "`clip`",
}
_HEAD = ("pairs", "best", "R@10, same kind", "another kind", "level with it")


def rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """One row a number of pairs.

    Args:
      summary: of a study with two sets, the first of the kind of training.
    """
    images = summary["images"]
    sizes = sorted(summary["sizes"].items(), key=lambda item: int(item[0]))
    found = []
    for size, methods in sizes:
        means = {m: scores(methods[m], images).mean() for m in methods if m in WRITTEN}
        best = max(means, key=lambda m: means[m])
        level = [m for m in sorted(means, key=lambda m: -means[m]) if m != best]
        level = [m for m in level if is_level(summary, size, best, m)]
        kinds = [f"{scores(methods[best], [name]).mean():.1f}" for name in images]
        names = ", ".join(WRITTEN[m] for m in level) or "none"
        found.append([f"{int(size):,}", WRITTEN[best], *kinds, names])
    return found


def scores(sets: Mapping[str, Any], names: Any) -> np.ndarray:
    """R@10 in percent by seed, the mean of both ways and of some sets."""
    each = [50 * np.add(sets[name]["i2t_r10"], sets[name]["t2i_r10"]) for name in names]
    return np.mean(each, axis=0)


def is_level(summary: Mapping[str, Any], size: str, best: str, method: str) -> bool:
    """Whether a method is as good as the best one, as far as the study can tell."""
    differences = summary.get("differences", {})
    if differences.get("reference") == best:
        sets = differences["sizes"][size]
        return all(sets[name][method][1] <= 0 for name in sets)
    images, methods = summary["images"], summary["sizes"][size]
    one, other = (scores(methods[m], images) for m in (best, method))
    share, count = one.mean() / 100, sum(images.values())
    error = 196 * np.sqrt(share * (1 - share) / count)
    spread = 2 * max(np.std(x, ddof=1) if len(x) > 1 else 0.0 for x in (one, other))
    return bool(one.mean() - other.mean() <= max(error, spread))


def table(folders: tuple[pathlib.Path, ...] = RESULTS) -> str:
    """The table as Markdown."""
    lines = [_HEAD, ["---:", "---", "---:", "---:", "---"]]
    for folder in folders:
        lines += rows(json.loads((folder / "summary.json").read_text()))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str]) -> None:
    """Prints the table, or writes it into the page."""
    folders = tuple(pathlib.Path(a) for a in arguments if a != "--write") or RESULTS
    made = table(folders)
    if "--write" not in arguments:
        print(made)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(BEGIN.strip())[0], page.split(END.strip())[1]
    PAGE.write_text(f"{before}{BEGIN}{made}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
