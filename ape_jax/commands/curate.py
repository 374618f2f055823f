"""Curating a pool from the command line: the chosen pairs, what was left out, a page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ape_jax.config import Config
from ape_jax.curation import curated as curation
from ape_jax.curation import target as targets
from ape_jax.curation import towers, written
from ape_jax.data.options import Reading
from ape_jax.errors import UserError
from ape_jax.pages import curation as page
from ape_jax.runs.directory import workdir
from ape_jax.storage import atomic, disk
from ape_jax.terminal import command
from ape_jax.towers import aligned

Found = tuple[dict[str, Any], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command was asked for; see its flags.

    Attributes:
      pairs: the pool, "" for the config's.
      target: what is to be served.
      kind: what of it counts, or "auto".
      count: number of pairs to choose.
      out: the file of the chosen pairs.
      html: a file to write a page to, "" for none.
      near: see `curated.Rules`.
      mismatched: likewise.
      diversity: likewise.
    """

    pairs: str
    target: str
    kind: str
    count: int
    out: str
    html: str
    near: float
    mismatched: float
    diversity: float


def config_of(directory: str) -> Config:
    """The config of a run, for its towers.

    Raises:
      UserError: where there is no run.
    """
    if aligned.is_model(directory):
        raise UserError(
            f"--workdir: {directory} is a finished model, whose towers were trained together; name "
            "towers with --config"
        )
    return workdir.read_config(workdir.locate(directory))


def curate(config: Config, asked: Asked) -> Found:
    """Chooses pairs and writes them.

    Args:
      config: for the towers and how pairs are read.
      asked: what the command was asked for.

    Returns:
      Figures for scripts, and the text for people.

    Raises:
      UserError: for pairs, a target or a tower that cannot be read, or files that cannot be
        written, before anything is encoded where it can be known by then.
    """
    out = written.check_out(asked.out)
    rules = curation.Rules(
        count=asked.count,
        near=asked.near,
        mismatched=asked.mismatched,
        diversity=asked.diversity,
        seed=config.seed,
    )
    settled, pool = towers.open_pool(
        towers.reading_config(config, asked.pairs or config.data.pairs)
    )
    curation.check(rules, pool)
    reading = dataclasses.replace(Reading.of(settled.data), columns={})
    target = targets.open_target(asked.target, asked.kind, reading)
    found = curation.curate(towers.load(settled), pool, target, rules)
    images = written.write(out, found.chosen)
    if asked.html:
        file = Path(asked.html).expanduser().absolute()
        with disk.write_errors(f"--html: {file}", "name another file"):
            atomic.write_text(file, page.document(found))
        command.say(f"written: {file}")
    told = page.facts(found)
    width = max(len(name) for name, _ in told) + 2
    lines = [f"{name:{width}}{value}" for name, value in told]
    lines.append(f"written: {out}" + (f", with {images:,} images beside it" if images else ""))
    return {**found.record(), "out": str(out), "images_written": images}, "\n".join(lines)
