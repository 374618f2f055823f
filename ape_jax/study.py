"""Compares methods over seeds: `ape-jax study --config C --workdir DIR [--plots]`."""

from __future__ import annotations

import pathlib

from absl import flags

from ape_jax.terminal import command
from ape_jax.terminal.flags import flag_values

FLAGS = flag_values("config", "workdir", "json")
_PLOTS = flags.DEFINE_bool(
    "plots", False, "Draw DIR/<set>.png; needs ape_jax[plots].", flag_values=FLAGS
)


def main() -> None:
    """Runs the grid of `study.methods`, `study.sizes` and `study.seeds` and prints its tables."""
    from ape_jax.parallel import hosts
    from ape_jax.studies import study, tables
    from ape_jax.studies.config import StudyConfig

    config, workdir = command.load_config(StudyConfig), command.workdir()
    if _PLOTS.value:
        tables.require_matplotlib()
    summary = study.run_study(config, workdir)
    if not hosts.is_first():
        return
    if _PLOTS.value:
        tables.plots(summary, pathlib.Path(workdir))
    where = f"runs and tables are in {workdir}"
    command.output(summary, f"{tables.tables(summary)}\n\n{where}")


if __name__ == "__main__":
    command.run(main)
