"""Formats of `--format`: each is one file that declares it and one line here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from ape_jax.config.registry import Registry
from ape_jax.exporters.verify import Embeddings, Inputs
from ape_jax.runs.aligned import AlignedModel

TORCH_MODULES: Mapping[str, tuple[str, ...]] = {"export": ("torch", "transformers")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """Declaration of a format.

    Attributes:
      name: of `--format`.
      title: whom it is for.
      write: fills an empty directory; raises UserError for what the format cannot express.
      encode: what the written directory makes of the inputs, by what the comparison is called.
      needs: modules that it is made or checked with, by the extra of ape_jax that has them.
      takes_finished: whether it is of use for a finished model, too.
      takes_torch: whether it takes towers that another library runs.
      takes_languages: whether it takes means of languages.
    """

    name: str
    title: str
    write: Callable[[AlignedModel, Path], None]
    encode: Callable[[AlignedModel, Path, Inputs], Mapping[str, Embeddings]]
    needs: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    takes_finished: bool = True
    takes_torch: bool = False
    takes_languages: bool = False


_ROOM = "ape_jax.exporters"
EXPORTS: Registry[ExportFormat] = Registry(
    "format",
    {
        "torch": f"{_ROOM}.to_torch:TORCH",
        "dual_encoder": f"{_ROOM}.to_dual_encoder:DUAL_ENCODER",
        "onnx": f"{_ROOM}.to_onnx:ONNX",
        "stablehlo": f"{_ROOM}.to_stablehlo:STABLEHLO",
        "jax": f"{_ROOM}.to_jax:JAX",
    },
)


def by_rows(name: str, found: Mapping[int, Embeddings]) -> dict[str, Embeddings]:
    """Names what was encoded so many rows at once."""
    return {f"{name}, at most {rows} rows at once": theirs for rows, theirs in found.items()}
