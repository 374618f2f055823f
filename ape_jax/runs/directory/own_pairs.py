"""The pairs of a run, opened again; what has changed since is said by name."""

from __future__ import annotations

import os

from ape_jax.config import Config
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.parallel import hosts
from ape_jax.runs.directory import workdir
from ape_jax.towers import aligned


def evaluation_sets(config: Config, directory: str | os.PathLike[str]) -> dict[str, Pairs]:
    """The sets of `data.eval`, by name; says which are not those that the run was evaluated on.

    Args:
      config: of the run.
      directory: its work directory, or a finished model.

    Raises:
      UserError: one cannot be opened.
    """
    return {
        name: _opened(config, directory, f"data.eval.{name}", spec, f"eval/{name}", "evaluated")
        for name, spec in config.data.eval.items()
    }


def training_pairs(config: Config, directory: str | os.PathLike[str]) -> Pairs:
    """The pairs of `data.pairs`; says so if they are not those that the run was trained on.

    Args:
      config: of the run.
      directory: its work directory, or a finished model.

    Raises:
      UserError: they cannot be opened.
    """
    return _opened(config, directory, "data.pairs", config.data.pairs, "train", "trained")


def _opened(
    config: Config, directory: str | os.PathLike[str], key: str, spec: str, name: str, done: str
) -> Pairs:
    pairs = open_pairs(spec, key=key, reading=Reading.of(config.data))
    known = {} if aligned.is_model(os.fspath(directory)) else workdir.recorded_digests(directory)
    if known.get(name, pairs.digest) != pairs.digest:
        hosts.say(f"{key}: {pairs.spec} has changed since the run was {done}")
    return pairs
