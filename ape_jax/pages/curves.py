"""Training and held-out curves of a run, with what they mean in a sentence each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ape_jax.config import Config
from ape_jax.pages import charts, html

_DIRECTIONS = {
    "t2i": "Held-out captions that find their image",
    "i2t": "Held-out images that find a caption",
}


def section(
    lines: Sequence[Mapping[str, float]],
    config: Config,
    chances: Mapping[str, Mapping[str, float]],
) -> html.Section:
    """Loss, held-out recall, scale, learning rate and gradient norm over the steps.

    Args:
      lines: of `metrics.jsonl`.
      config: of the run.
      chances: expected figures of a random order, by data set.
    """
    if not any("train/loss" in line for line in lines):
        words = "Nothing was trained step by step: the heads were solved in closed form."
        return html.Section("Curves", html.paragraph(words))
    drawn = [_loss(lines, config), *(_recall(lines, chances, way) for way in _DIRECTIONS)]
    drawn.append(_scale(lines))
    drawn.append(charts.chart("Learning rate", {"learning rate": _points(lines, "train/lr")}))
    drawn.append(_gradient(lines))
    body = f'<div class="charts">{"".join(drawn)}</div>'
    if chances and not any(drawn[1:3]):
        body += html.paragraph(
            "Held-out figures were taken at the end only; train.eval_every=N takes them every N "
            "steps and draws them here, beside the loss.",
            "soft",
        )
    return html.Section("Curves", body)


def _points(lines: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    return [(line["step"], line[key]) for line in lines if key in line]


def _loss(lines: Sequence[Mapping[str, float]], config: Config) -> str:
    marks, note = {}, "It falls while the model learns its training pairs."
    if config.loss.name == "softmax":
        choices = config.train.batch
        if config.loss.negatives == "local":
            choices //= config.loss.local_groups
        marks[f"guessing: ln {choices:,} = {math.log(choices):.2f}"] = math.log(choices)
        note = (
            f"A model that guesses among the {choices:,} pairs of a batch has ln {choices:,}. "
            "Where the loss falls and held-out recall no longer rises, it learns its training "
            "pairs by heart."
        )
    points = {"training loss": _points(lines, "train/loss")}
    if config.structure.weight:  # Of the two, the contrastive loss is what is held to ln B.
        points["without the structure term"] = _points(lines, "train/contrastive")
    return charts.chart("Training loss", points, y_title="nats", marks=marks, note=note)


def _recall(
    lines: Sequence[Mapping[str, float]], chances: Mapping[str, Mapping[str, float]], way: str
) -> str:
    found = {
        name: [(x, 100 * y) for x, y in _points(lines, f"eval/{name}/{way}_r10")]
        for name in chances
    }
    if max((len(points) for points in found.values()), default=0) < 2:
        return ""
    levels = {round(100 * chance[f"{way}_r10"]) for chance in chances.values()}
    marks = {f"chance: {level}": float(level) for level in sorted(levels)}
    return charts.chart(
        _DIRECTIONS[way],
        found,
        y_title="of 100, among the first 10",
        marks=marks,
        note="Pairs that training does not see; higher is better.",
    )


def _scale(lines: Sequence[Mapping[str, float]]) -> str:
    return charts.chart(
        "Scale",
        {"scale": _points(lines, "train/scale")},
        y_title="factor on cosines",
        note="Cosines are multiplied by it before they are compared: the surer the model, the "
        "higher. One that falls says that the pairs cannot be told apart.",
    )


def _gradient(lines: Sequence[Mapping[str, float]]) -> str:
    return charts.chart(
        "Gradient norm",
        {"gradient norm": _points(lines, "train/grad_norm")},
        note="Length of the loss's gradient; jumps may mean that the learning rate is too high.",
    )
