"""Images through transformers: its processor, its model, its pooling."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from PIL import Image

from ape_jax.errors import UserError
from ape_jax.towers.torch import hf_files, libraries
from ape_jax.towers.torch.running import Running, array, count_parameters, mask_array

_PREFIX = re.compile(
    r"(.*\.)?embeddings\.(cls_tokens?|class_embedding|class_token|distillation_token|register_tokens)"
)
_SHUFFLES = "vit_mae"
_POOLED = ("pooler_output", "summary")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HfImages:
    """An `OutsideEncoder` of images.

    Attributes:
      spec: of the tower.
      loaded: the model.
      processor: transformers' image processor.
      running: how the model is run.
    """

    spec: str
    loaded: hf_files.Loaded
    processor: Any
    running: Running

    def prepare(self, items: Sequence[Any]) -> dict[str, Any]:
        """Decoded images u8 [H, W, 3] as the model's input, one by one in threads."""
        pictures = [Image.fromarray(np.asarray(item)) for item in items]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            done = list(pool.map(lambda picture: self._processed([picture]), pictures))
        shapes = [{name: value.shape for name, value in one.items()} for one in done]
        if any(shape != shapes[0] for shape in shapes):  # Padded to the largest of a batch.
            return self._processed(pictures)
        return {name: np.concatenate([one[name] for one in done]) for name in done[0]}

    def _processed(self, pictures: list[Any]) -> dict[str, np.ndarray]:
        made = self.processor(images=pictures, return_tensors="np")
        return {name: np.asarray(value) for name, value in made.items()}

    def tokens(
        self, batch: Mapping[str, Any], layer: int
    ) -> tuple[Float32[np.ndarray, "b t d"], Bool[np.ndarray, "b t"]]:
        """All tokens, or places of a feature map row by row, of a hidden state."""
        out = self._run(batch, hidden=layer != -1)
        found = out.last_hidden_state
        if layer != -1:
            found = _hidden_state(self.spec, out, layer)
        if found.ndim == 4:  # A feature map [B, C, H, W].
            found = found.flatten(2).transpose(1, 2)
        if "pixel_attention_mask" in batch:
            mask = mask_array(self.running.inputs(batch)["pixel_attention_mask"])
            if mask.shape == tuple(found.shape[:2]):
                return array(found), mask
        return array(found), np.ones(tuple(found.shape[:2]), bool)

    def own(self, batch: Mapping[str, Any]) -> Float32[np.ndarray, "b e"]:
        """The model's `pooler_output`."""
        out = self._run(batch, hidden=False)
        name = next(name for name in _POOLED if getattr(out, name, None) is not None)
        return array(getattr(out, name).flatten(1))

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, "b"]:
        """Raises ValueError: images have no tokens to count."""
        raise ValueError("a tower of images reads no texts")

    def _run(self, batch: Mapping[str, Any], hidden: bool) -> Any:
        inputs = self.running.inputs(batch)
        if self.loaded.config.model_type == _SHUFFLES:
            inputs["noise"] = self._in_order(len(inputs["pixel_values"]))
        if hidden:
            inputs["output_hidden_states"] = True
        with self.running():
            return self.loaded.model(**inputs)

    def _in_order(self, rows: int) -> Any:
        """MAE's noise, by which it shuffles patches, as what leaves them where they are."""
        import torch

        config = self.loaded.config
        places = (config.image_size // config.patch_size) ** 2
        return torch.arange(places, device=self.running.device).float().expand(rows, places)

    def pools(self) -> bool:
        """Whether the model pools itself, with weights of its own that are all there."""
        out = self._example
        return self.loaded.pools and any(getattr(out, name, None) is not None for name in _POOLED)

    def depth(self) -> int:
        """Hidden states behind the first; 0 where the model gives none."""
        found = getattr(self._example, "hidden_states", None)
        return len(found) - 1 if found else 0

    @functools.cached_property
    def _example(self) -> Any:
        """The output for a blank image."""
        return self._run(self.prepare([np.zeros((64, 64, 3), np.uint8)]), hidden=True)

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the first patch: CLS and registers."""
        found = {
            name: parameter
            for name, parameter in self.loaded.model.named_parameters()
            if _PREFIX.fullmatch(name)
        }
        return sum(tensor.shape[-2] if tensor.ndim > 1 else 1 for tensor in found.values())

    def title(self) -> str:
        """The library and the class of the model."""
        return f"transformers {type(self.loaded.model).__name__}"

    def parameters(self) -> int:
        """Number of the model's parameters."""
        return count_parameters(self.loaded.model)

    def settings(self) -> Mapping[str, str]:
        """The processor's settings, and the number format."""
        kept = json.dumps(self.processor.to_dict(), sort_keys=True, default=str)
        return {
            "processor": f"{type(self.processor).__name__} {kept}",
            **self.running.settings(),
        }

    def versions(self) -> Mapping[str, str]:
        """Versions of torch and transformers."""
        return libraries.versions("hf")


def _hidden_state(spec: str, out: Any, layer: int) -> Any:
    found = getattr(out, "hidden_states", None)
    if not found or not -len(found) <= layer < len(found):
        there = f"{len(found)} hidden states" if found else "no hidden states"
        raise UserError(f"layer is {layer}; {spec} gives {there}: write -1 for its output")
    return found[layer]


def read(spec: str, path: Path, running: Running, *, code: bool) -> HfImages:
    """Reads model and processor.

    Args:
      spec: of the tower, for messages.
      path: the directory.
      running: how the model is run.
      code: whether the directory's own code may be run.

    Raises:
      UserError: either cannot be read.
    """
    loaded = hf_files.load(spec, path, "image", code=code)
    if loaded.config.model_type == _SHUFFLES:
        loaded.model.config.mask_ratio = 0.0  # MAE drops patches at random otherwise.
    transformers = libraries.module("hf", spec)
    with libraries.loading(spec, "transformers cannot read the image processor"):
        # As where torchvision is absent: an installed one would change pixels.
        processor = transformers.AutoImageProcessor.from_pretrained(
            path, backend="pil", trust_remote_code=code, local_files_only=True
        )
    model = running.placed(loaded.model)
    placed = dataclasses.replace(loaded, model=model)
    return HfImages(spec=spec, loaded=placed, processor=processor, running=running)
