"""Trains, evaluates and checkpoints: `python -m ape_jax.main --config C --workdir DIR`."""

from __future__ import annotations

from ape_jax import command
from ape_jax.evaluators import report
from ape_jax.parallel import hosts
from ape_jax.training import loop


def main() -> None:
    """Runs the training that the flags describe and prints its retrieval table."""
    config, workdir = command.load_config(), command.workdir()
    summary = loop.train_and_evaluate(config, workdir)
    if not hosts.is_first():
        return
    if config.data.eval:
        print(report.retrieval_table(summary))
    print(f"step {summary['step']}; results are in {workdir}/summary.json")


if __name__ == "__main__":
    command.run(main)
