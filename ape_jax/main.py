"""Trains, evaluates and checkpoints: `python -m ape_jax.main --config C --workdir DIR`."""

from __future__ import annotations

import sys

import jax
from absl import flags

from ape_jax import pages
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.terminal import command
from ape_jax.terminal import tables as report
from ape_jax.training import loop

_REPORT = flags.DEFINE_bool("report", True, "Write DIR/report.html at the end.")


def main() -> None:
    """Runs the training that the flags describe, prints its retrieval table, writes its report."""
    config, workdir = command.load_config(), command.workdir()
    summary = loop.train_and_evaluate(config, workdir)
    if not hosts.is_first():
        return
    if config.data.eval:
        print(report.retrieval_table(summary))
    print(f"step {summary['step']}; results are in {workdir}/summary.json")
    # A page is made by one process alone, and a model that is spread over several takes all.
    if _REPORT.value and jax.process_count() == 1:
        _write_report(workdir)


def _write_report(workdir: str) -> None:
    try:
        print(f"something to look at is in {pages.write(workdir)}")
    except UserError as error:  # The run itself is whole.
        print(f"no report was written: {error}", file=sys.stderr)


if __name__ == "__main__":
    command.run(main)
