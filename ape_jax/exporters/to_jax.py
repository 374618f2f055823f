"""`--format jax`: a run with its towers in it, for `ape_jax.load`."""

from __future__ import annotations

from pathlib import Path

from ape_jax.exporters import verify
from ape_jax.exporters.formats import ExportFormat
from ape_jax.exporters.publish import card
from ape_jax.runs import portable
from ape_jax.runs.aligned import AlignedModel
from ape_jax.runs.encoder import Encoder
from ape_jax.runs.restore import restore


def write(aligned: AlignedModel, directory: Path) -> None:
    """Fills an empty directory."""
    portable.write(directory, aligned)
    text = card.text(aligned, card.JAX, library="ape_jax")
    (directory / "README.md").write_text(text, encoding="utf-8")


def _encode(
    aligned: AlignedModel, directory: Path, inputs: verify.Inputs
) -> dict[str, verify.Embeddings]:
    return {"jax": verify.ours(Encoder(restore(directory, verify.EXACT)), inputs)}


JAX = ExportFormat(
    name="jax",
    title="for ape_jax.load with the towers in it",
    write=write,
    encode=_encode,
    takes_finished=False,
    takes_torch=True,
    takes_languages=True,
)
