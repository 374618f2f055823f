"""Images through timm: its transform, its model, its pooling."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from PIL import Image

from ape_jax.errors import UserError
from ape_jax.towers.files import reading, sources
from ape_jax.towers.torch import libraries
from ape_jax.towers.torch.running import Running, array, count_parameters


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TimmImages:
    """An `OutsideEncoder` of images.

    Attributes:
      spec: of the tower.
      model: timm's, without a classifier.
      transform: timm's for evaluation: one PIL image to one tensor.
      running: how the model is run.
    """

    spec: str
    model: Any
    transform: Any
    running: Running

    def prepare(self, items: Sequence[Any]) -> dict[str, Any]:
        """Decoded images u8 [H, W, 3] as the model's input, one by one in threads."""
        pictures = [Image.fromarray(np.asarray(item)) for item in items]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return {"x": np.stack([np.asarray(x) for x in pool.map(self.transform, pictures)])}

    def tokens(
        self, batch: Mapping[str, Any], layer: int
    ) -> tuple[Float32[np.ndarray, "b t d"], Bool[np.ndarray, "b t"]]:
        """Output of `forward_features`; places of a feature map row by row."""
        if layer != -1:
            raise UserError(f"layer is {layer}; {self.spec} gives its output alone: write -1")
        with self.running():
            found = self.model.forward_features(**self.running.inputs(batch))
        if found.ndim == 4 and getattr(self.model, "output_fmt", "NCHW") != "NHWC":
            found = found.permute(0, 2, 3, 1)
        found = found.flatten(1, -2) if found.ndim == 4 else found
        return array(found), np.ones(tuple(found.shape[:2]), bool)

    def own(self, batch: Mapping[str, Any]) -> Float32[np.ndarray, "b e"]:
        """Output before a classifier: `forward_head(pre_logits=True)`."""
        with self.running():
            found = self.model.forward_features(**self.running.inputs(batch))
            return array(self.model.forward_head(found, pre_logits=True))

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, "b"]:
        """Raises ValueError: images have no tokens to count."""
        raise ValueError("a tower of images reads no texts")

    def pools(self) -> bool:
        """True: every model of timm has a head."""
        return True

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the first patch."""
        return int(getattr(self.model, "num_prefix_tokens", 0))

    def depth(self) -> int:
        """0: hidden states are not read."""
        return 0

    def title(self) -> str:
        """The library and the class of the model."""
        return f"timm {self.model.default_cfg.get('architecture', type(self.model).__name__)}"

    def parameters(self) -> int:
        """Number of the model's parameters."""
        return count_parameters(self.model)

    def settings(self) -> Mapping[str, str]:
        """The transform, and the number format."""
        return {"processor": repr(self.transform), **self.running.settings()}

    def versions(self) -> Mapping[str, str]:
        """Versions of torch and timm."""
        return libraries.versions("timm")


def read(spec: str, path: Path, running: Running) -> TimmImages:
    """Reads model and transform.

    Args:
      spec: of the tower, for messages.
      path: the directory.
      running: how the model is run.

    Raises:
      UserError: timm cannot read them, or the directory has no safetensors that it would read.
    """
    timm = libraries.module("timm", spec)
    values = sources.read_json(path / "config.json")
    reading.whole(path / "config.json")
    if not isinstance(values.get("architecture"), str):
        raise UserError(f"{path}/config.json names no 'architecture'; it is no model of timm")
    if not (path / "model.safetensors").is_file():
        raise UserError(f"{path} holds no model.safetensors, which timm would read; rename yours")
    with libraries.loading(spec, "timm cannot read the model"):
        # Without a classifier whatever the number of its classes, so that none need be right.
        model = timm.create_model(f"local-dir:{path}", pretrained=True, num_classes=0)
        settings = timm.data.resolve_model_data_config(model)
        transform = timm.data.create_transform(**settings, is_training=False)
    return TimmImages(spec=spec, model=running.placed(model), transform=transform, running=running)
