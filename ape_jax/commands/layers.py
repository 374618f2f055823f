"""Comparing layers from the command line, and what it prints."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.config.components import text_parts
from ape_jax.config.fields import BY_DATA
from ape_jax.config.rules.layers import open_keys
from ape_jax.parallel import hosts
from ape_jax.runs.checkpoints import agreed
from ape_jax.runs.directory import layers_record, workdir
from ape_jax.storage import disk
from ape_jax.studies.tables import require_matplotlib
from ape_jax.terminal import command, tables
from ape_jax.training.input import opened
from ape_jax.training.layers import settled

PICTURE = "layers.png"
_KEYS = ("image.layer", "text.layer", "image.pooling")


def layers(config: Config, directory: str, *, plots: bool) -> None:
    """Chooses layers and poolings by the training pairs; writes `layers.json`.

    Where the config leaves none of them open, all that have an effect are chosen.

    Args:
      config: of the run.
      directory: where the record goes; a training there takes the choice from it.
      plots: whether to draw the overlaps of all layers.

    Raises:
      UserError: where no choice can be made; matplotlib is asked for and not installed.
    """
    if plots:
        require_matplotlib()
    if not open_keys(config):
        keys = (*_KEYS, "text.pooling") if _pools_texts(config) else _KEYS
        config = config_lib.resolve({**config_lib.flatten(config), **dict.fromkeys(keys, BY_DATA)})
    path = workdir.locate(directory)
    agreed.on_config(config)
    config, sources = opened.settled(config)
    agreed.on_pairs(sources.digests())
    _, record = settled(config, sources.train, path)
    assert record is not None
    with disk.write_errors(f"--workdir: {path}"):
        path.mkdir(parents=True, exist_ok=True)
    layers_record.write(path, record, workdir.AGAIN)
    if not hosts.is_first():
        return
    if plots:
        with disk.write_errors(f"--workdir: {path / PICTURE}"):
            draw(record, path / PICTURE)
    command.output(record, f"{text(record)}\n\nthe same is in {path / layers_record.FILE}")


def _pools_texts(config: Config) -> bool:
    """Whether a head takes one vector a caption."""
    parts = text_parts(config.text.head.name).values()
    return not config.trains or any(part.pooled is not None for part in parts)


def text(record: Mapping[str, Any]) -> str:
    """The tables of a record and the keys to write, in Markdown."""
    parts = ["Overlap of neighbourhoods above chance, in percent:", _overlaps(record)]
    for side, rows in record["retrieval"].items():
        parts += [f"Held-out retrieval after CCA, by what is read of the {side} tower:"]
        parts += [_retrieval(rows)]
    chosen = " ".join(f"--config.{k}={_shown(v)}" for k, v in record["chosen"].items())
    parts += [f"chosen by {record['by']} of {record['images']:,} images: {chosen}"]
    return "\n\n".join(parts)


def _overlaps(record: Mapping[str, Any]) -> str:
    images, texts, scores = overlap_grid(record)
    rows = [[name, *(f"{100 * x:.1f}" for x in row)] for name, row in zip(images, scores)]
    return tables.markdown(["image \\ text", *texts], rows)


def overlap_grid(record: Mapping[str, Any]) -> tuple[list[str], list[str], list[list[float]]]:
    """Names of the image layers and of the text layers, and the score of each pair."""
    found = {(_shown(x["image"]), _shown(x["text"])): x["score"] for x in record["neighbours"]}
    images = list(dict.fromkeys(image for image, _ in found))
    texts = list(dict.fromkeys(text for _, text in found))
    return images, texts, [[found[image, text] for text in texts] for image in images]


def _retrieval(rows: list[Mapping[str, Any]]) -> str:
    names = [name for name in rows[0] if name not in ("layer", "pooling")]
    cells = [
        [_shown(row["layer"]), row["pooling"], *(f"{100 * row[name]:.1f}" for name in names)]
        for row in rows
    ]
    return tables.markdown(["layer", "pooling", *(n.replace("_", " ") for n in names)], cells)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def draw(record: Mapping[str, Any], file: pathlib.Path) -> None:
    """Draws the overlaps as a heat map."""
    from matplotlib.figure import Figure  # Without pyplot: no window, no state.

    images, texts, scores = overlap_grid(record)
    figure = Figure(figsize=(2 + 0.4 * len(texts), 2 + 0.32 * len(images)), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(scores, origin="lower", cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(texts)), texts)
    axes.set_yticks(range(len(images)), images)
    axes.set(xlabel="text layer", ylabel="image layer")
    axes.set_title(f"shared neighbours above chance, {record['images']:,} images")
    figure.colorbar(shown, ax=axes)
    figure.savefig(file, dpi=150)
