"""Trains, evaluates and checkpoints: `ape-jax train --config C --workdir DIR`."""

from __future__ import annotations

from absl import flags

from ape_jax.terminal import command
from ape_jax.terminal.flags import flag_values

FLAGS = flag_values("config", "workdir", "json")
_REPORT = flags.DEFINE_bool("report", True, "Write DIR/report.html at the end.", flag_values=FLAGS)


def main() -> None:
    """Runs the training that the flags describe, prints its retrieval table, writes its report."""
    config, workdir = command.load_config(), command.workdir()
    from ape_jax.commands import train

    train.train(config, workdir, report=_REPORT.value)


if __name__ == "__main__":
    command.run(main)
