"""Fills the feature cache and stops: `ape-jax extract --config C --workdir DIR`."""

from __future__ import annotations

from ape_jax.terminal import command
from ape_jax.terminal.flags import CONFIG, flag_values

FLAGS = flag_values("config", "workdir", "json", "engine", "address", "actors")


def main() -> None:
    """Encodes what the config's run reads, prints a table and writes `extract.json`."""
    config, workdir = command.load_config(), command.workdir()
    cluster = command.ray_cluster()
    from ape_jax.parallel import hosts
    from ape_jax.training import extraction

    summary = extraction.extract(config, workdir, cluster, CONFIG.value)
    if hosts.is_first():
        where = f"{summary['seconds']:.1f} s; the same is in {workdir}/extract.json"
        command.output(summary, f"{extraction.table(summary)}\n{where}")


if __name__ == "__main__":
    command.run(main)
