"""`--format onnx`: two graphs for ONNX Runtime, made of what `--format torch` writes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ape_jax.exporters import parts, processors, subprocesses, to_torch, verify
from ape_jax.exporters.files import write_json
from ape_jax.exporters.formats import TORCH_MODULES, ExportFormat, by_rows
from ape_jax.exporters.publish import card
from ape_jax.runs.aligned import AlignedModel


def write(aligned: AlignedModel, directory: Path) -> None:
    """Fills an empty directory with `image.onnx`, `text.onnx` and what goes before and after them.

    Raises:
      UserError: as `to_torch.write`, or where torch cannot convert the model.
    """
    with tempfile.TemporaryDirectory(prefix="torch_", dir=directory) as folder:
        to_torch.write(aligned, Path(folder))
        convert({Path(folder): (aligned, directory)})


def convert(exports: Mapping[Path, tuple[AlignedModel, Path]]) -> None:
    """Converts torch exports in one process, which takes seconds to start.

    Args:
      exports: by the directory of a torch export, the run it is of and the directory to fill.

    Raises:
      UserError: where torch cannot convert one.
    """
    job = [
        {"torch": str(made), "longest": aligned.model.text.tower.prepare.max_length, "out": str(to)}
        for made, (aligned, to) in exports.items()
    ]
    with tempfile.TemporaryDirectory(prefix="ape_jax_export_") as work:
        wrong = "--out: torch cannot convert the model to ONNX"
        subprocesses.run("convert_onnx.py", {"directories": job}, Path(work), wrong)
    for aligned, to in exports.values():
        _describe(aligned, to)


def _describe(aligned: AlignedModel, directory: Path) -> None:
    """The processors, config.json, the model card and the towers' notices."""
    processors.write(aligned, directory)
    write_json(directory / "config.json", parts.settings(aligned))
    text = card.text(aligned, card.ONNX, library="onnx")
    (directory / "README.md").write_text(text, encoding="utf-8")
    card.copy_notices(aligned, directory)


def _encode(
    aligned: AlignedModel, directory: Path, inputs: verify.Inputs
) -> dict[str, verify.Embeddings]:
    return by_rows("onnx", verify.onnx(directory, inputs))


ONNX = ExportFormat(
    name="onnx",
    title="for ONNX Runtime",
    write=write,
    encode=_encode,
    needs={**TORCH_MODULES, "onnx": ("onnx", "onnxruntime", "onnxscript")},
    takes_languages=True,
)
