"""Makes ONNX graphs of exported torch directories: run alone, where only torch is.

    python convert_onnx.py JOB.json

JOB holds `directories`, each with `torch` (what `--format torch` writes), `longest` (tokens that
its text tower takes) and `out`, a directory that gets `image.onnx` and `text.onnx`.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.export import Dim

_BATCH, _LENGTH = 3, 7  # Of what is traced; torch takes sizes of 0 and 1 for constants.


class _Images(nn.Module):
    """The image half of a model."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model.get_image_features(pixel_values)


class _Texts(nn.Module):
    """The text half of a model."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model.get_text_features(input_ids, attention_mask)


class _SpokenTexts(_Texts):
    """The text half of a model with means of languages."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, language: Tensor) -> Tensor:
        return self.model.get_text_features(input_ids, attention_mask, language)


def convert(directory: str, longest: int, out: Path) -> None:
    """Writes the two graphs of one model, in f32."""
    # Eager: transformers' sdpa leaves out a mask that masks nothing; no graph may hang on that.
    model = transformers.AutoModel.from_pretrained(
        directory, trust_remote_code=True, attn_implementation="eager"
    ).eval()
    size, batch = model.config.vision_config.image_size, Dim("batch", min=1)
    images = {"pixel_values": torch.zeros(_BATCH, 3, size, size)}
    export(_Images(model), images, {0: batch}, out / "image.onnx")
    # Mixed lengths, so that there is padding in what is traced.
    length = min(_LENGTH, longest)
    mask = (torch.arange(length) < torch.tensor([[length], [1], [length - 1]])).long()
    texts = {"input_ids": mask.clone(), "attention_mask": mask}
    sizes = {0: batch, 1: Dim("length", min=1, max=longest)}
    half = _Texts(model)
    if getattr(model.config, "languages", ()):
        half, texts["language"] = _SpokenTexts(model), torch.zeros(_BATCH, dtype=torch.long)
    export(half, texts, sizes, out / "text.onnx")


def export(half: nn.Module, inputs: dict[str, Tensor], sizes: dict[int, Dim], path: Path) -> None:
    """One graph.

    Args:
      half: of a model.
      inputs: what is traced, by name.
      sizes: the free dimensions of each of these.
      path: an .onnx; weights that are too many for one file go into PATH.data beside it.

    Raises:
      SystemExit: where the code makes a constant of a size that shall be free.
    """
    program = torch.onnx.export(
        half,
        kwargs=inputs,
        output_names=[f"{path.stem}_embeds"],
        dynamo=True,
        dynamic_shapes={
            name: {i: size for i, size in sizes.items() if i < x.ndim} for name, x in inputs.items()
        },
        verbose=False,
    )
    # torch says nothing when it finds such a constant: it gives that size up and goes on.
    graph = program.model.graph
    held = [f"{x.name}[{i}]={x.shape[i]}" for x in graph.inputs for i in sizes if _fixed(x, i)]
    if held:
        raise SystemExit(f"{path.name} would only take {', '.join(held)}")
    for node in graph.all_nodes():
        node.metadata_props.clear()  # Paths and lines of this machine.
    program.save(path)


def _fixed(value: Any, axis: int) -> bool:
    return axis < len(value.shape) and isinstance(value.shape[axis], int)


def main(path: str) -> None:
    """Does one job."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    warnings.simplefilter("ignore")
    with torch.no_grad():
        for directory in job["directories"]:
            convert(directory["torch"], directory["longest"], Path(directory["out"]))


if __name__ == "__main__":
    main(sys.argv[1])
