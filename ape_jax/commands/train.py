"""Training from the command line, and what it prints at the end."""

from __future__ import annotations

import sys

import jax

from ape_jax import pages
from ape_jax.config import Config
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.terminal import command, tables
from ape_jax.training import loop


def train(config: Config, workdir: str, *, report: bool) -> None:
    """Trains, prints the retrieval table and writes the report.

    Args:
      config: of the run.
      workdir: its directory.
      report: whether to write report.html.
    """
    summary = loop.train_and_evaluate(config, workdir)
    if not hosts.is_first():
        return
    table = (
        [tables.retrieval_table(summary)] if any(key.startswith("eval/") for key in summary) else []
    )
    best = summary.get("best_step")
    kept = "" if best is None else f", the state of step {best} did best and is used"
    where = f"step {summary['step']}{kept}; results are in {workdir}/summary.json"
    command.output(summary, "\n".join([*table, where]))
    # A page is made by one process alone, and a model that is spread over several takes all.
    if report and jax.process_count() == 1:
        _write_report(workdir)


def _write_report(workdir: str) -> None:
    try:
        command.say(f"something to look at is in {pages.write(workdir)}")
    except UserError as error:  # The run itself is whole.
        print(f"no report was written: {error}", file=sys.stderr)
