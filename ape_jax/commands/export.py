"""Exporting a run from the command line: written, then verified, or removed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from ape_jax.exporters import verified
from ape_jax.exporters.publish import facts as card_facts
from ape_jax.storage import files


def export(
    source: str,
    to: str,
    format_name: str,
    inputs: str,
    card: Mapping[str, tuple[str, ...]],
    dim: int | None = None,
) -> None:
    """Writes a run or a model for use elsewhere, and verifies what it wrote.

    Args:
      source: directory of a run or of a model.
      to: directory to write, which must not exist.
      format_name: a name of `EXPORTS`.
      inputs: pairs to check the result with, or "" for the run's own.
      card: values of `terminal.card_flags`.
      dim: width of the embeddings, as `--dim`.

    Raises:
      UserError: for what cannot be exported, or differs from the run.
    """
    out = verified.export(source, to, format_name, inputs, card_facts.from_flags(card), dim)
    print(f"{out} holds the run for {format_name}")
    readme = out / "README.md"
    if readme.exists():
        say_missing(card_facts.missing(files.read_text(readme)))


def say_missing(keys: Sequence[str]) -> None:
    """Says once what a model card does not state, and how to state it."""
    if keys:
        flags = " ".join(f"--{key}=..." for key in keys)
        print(f"its model card does not state: {', '.join(keys)}; {flags} adds it", file=sys.stderr)
