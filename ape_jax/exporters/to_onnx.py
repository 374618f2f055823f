"""`--format onnx`: two graphs for ONNX Runtime, made of what `--format torch` writes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ape_jax.exporters import alone, card, processors, to_torch
from ape_jax.exporters.files import write_json
from ape_jax.exporters.trained import Trained


def write(trained: Trained, directory: Path) -> None:
    """Fills an empty directory with `image.onnx`, `text.onnx` and what goes before and after them.

    Raises:
      UserError: as `to_torch.write`, or where torch cannot convert the model.
    """
    with tempfile.TemporaryDirectory(prefix="torch_", dir=directory) as folder:
        to_torch.write(trained, Path(folder))
        convert({Path(folder): (trained, directory)})


def convert(exports: Mapping[Path, tuple[Trained, Path]]) -> None:
    """Converts torch exports in one process, which takes seconds to start.

    Args:
      exports: by the directory of a torch export, the run it is of and the directory to fill.

    Raises:
      UserError: where torch cannot convert one.
    """
    job = [
        {"torch": str(made), "longest": trained.model.text.tower.prepare.max_length, "out": str(to)}
        for made, (trained, to) in exports.items()
    ]
    with tempfile.TemporaryDirectory(prefix="ape_jax_export_") as work:
        wrong = "--out: torch cannot convert the model to ONNX"
        alone.run("convert_onnx.py", {"directories": job}, Path(work), wrong)
    for trained, to in exports.values():
        _describe(trained, to)


def _describe(trained: Trained, directory: Path) -> None:
    """The processors, config.json, the model card and the towers' notices."""
    processors.write(trained, directory)
    write_json(directory / "config.json", trained.settings)
    text = card.text(trained, card.ONNX, library="onnx")
    (directory / "README.md").write_text(text, encoding="utf-8")
    card.copy_notices(trained, directory)
