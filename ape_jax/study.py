"""Compares methods over seeds: `python -m ape_jax.study --config C --workdir DIR [--plots]`."""

from __future__ import annotations

import pathlib

from absl import flags

from ape_jax.parallel import hosts
from ape_jax.studies import study
from ape_jax.studies import tables as study_tables
from ape_jax.studies.config import StudyConfig
from ape_jax.terminal import command

_PLOTS = flags.DEFINE_bool("plots", False, "Draw DIR/<set>.png; needs requirements-study.txt.")


def main() -> None:
    """Runs the grid of `study.methods`, `study.sizes` and `study.seeds` and prints its tables."""
    config, workdir = command.load_config(StudyConfig), command.workdir()
    if _PLOTS.value:
        study_tables.require_matplotlib()
    summary = study.run_study(config, workdir)
    if not hosts.is_first():
        return
    if _PLOTS.value:
        study_tables.plots(summary, pathlib.Path(workdir))
    print(f"{study_tables.tables(summary)}\n\nruns and tables are in {workdir}")


if __name__ == "__main__":
    command.run(main)
