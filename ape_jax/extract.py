"""Fills the feature cache and stops: `python -m ape_jax.extract --config C --workdir DIR`."""

from __future__ import annotations

from ape_jax.parallel import hosts
from ape_jax.terminal import command
from ape_jax.training import extraction


def main() -> None:
    """Encodes what the config's run reads, prints a table and writes `extract.json`."""
    config, workdir = command.load_config(), command.workdir()
    summary = extraction.extract(config, workdir)
    if hosts.is_first():
        print(extraction.table(summary))
        print(f"{summary['seconds']:.1f} s; the same is in {workdir}/extract.json")


if __name__ == "__main__":
    command.run(main)
