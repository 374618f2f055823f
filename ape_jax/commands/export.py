"""Exporting a run from the command line: written, then verified, or removed."""

from __future__ import annotations

from ape_jax.exporters import verified


def export(source: str, to: str, format_name: str, inputs: str) -> None:
    """Writes a run or a model for use elsewhere, and verifies what it wrote.

    Args:
      source: directory of a run or of a model.
      to: directory to write, which must not exist.
      format_name: a name of `EXPORTS`.
      inputs: pairs to check the result with, or "" for the run's own.

    Raises:
      UserError: for what cannot be exported, or differs from the run.
    """
    print(f"{verified.export(source, to, format_name, inputs)} holds the run for {format_name}")
