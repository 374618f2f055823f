"""Compares methods over seeds: `python -m ape_jax.study --config C --workdir DIR`."""

from __future__ import annotations

from ape_jax import command
from ape_jax.parallel import hosts
from ape_jax.training import study


def main() -> None:
    """Runs the grid of `study.methods` and `study.seeds` and prints its tables."""
    config, workdir = command.load_config(), command.workdir()
    summary = study.run_study(config, workdir)
    if hosts.is_first():
        print(f"{study.tables(summary)}\n\nruns and tables are in {workdir}")


if __name__ == "__main__":
    command.run(main)
