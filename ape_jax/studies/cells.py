"""Where the runs of a study are: `DIR/ape/seed0`, or `DIR/ape/n1000/seed0` with several sizes."""

from __future__ import annotations

import pathlib

from ape_jax.studies.config import StudyConfig
from ape_jax.studies.methods import METHODS


def seeds_of(config: StudyConfig, method: str, size: int) -> range:
    """The seeds of a method's runs: one, where they would all be the same."""
    varies = METHODS[method].seeded or (size and method != "chance")
    return range(config.seed, config.seed + (config.study.seeds if varies else 1))


def directory_of(path: pathlib.Path, method: str, size: int, seed: int) -> pathlib.Path:
    """The work directory of one run."""
    return (path / method / f"n{size}" if size else path / method) / f"seed{seed}"


def directories_of(
    config: StudyConfig, path: pathlib.Path, method: str, size: int = 0
) -> list[pathlib.Path]:
    """The work directories of a method's runs, one a seed.

    Args:
      config: the study's.
      path: the study's directory, or that of one of its domains.
      method: a key of `METHODS` that is a run.
      size: number of training pairs as `study.sizes` has it, 0 for all.
    """
    return [directory_of(path, method, size, seed) for seed in seeds_of(config, method, size)]
