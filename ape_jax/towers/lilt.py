"""Layerwise adapters in what LilT saves: their names there, and where ours lie.

They stand in the model's file among the tensors of its towers, and are none of a tower's own
(`align.peft` puts them in from outside).

References:
  github.com/codezakh/LilT, `models/conventional_adapter.py`, `vit.py` and `med.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

import numpy as np
from jaxtyping import Float32

from ape_jax.towers.tower import Kind

NAMES = r".+\.adapter[12]?\.(down|up)_sampler\.(weight|bias)"
"""The tensors of adapters, by a regular expression over whole names."""

# By our path inside a block.
_PLACES: Mapping[Kind, Mapping[str, str]] = {
    "image": {
        "norm1": "visual_encoder.blocks.{}.adapter1",
        "norm2": "visual_encoder.blocks.{}.adapter2",
    },
    "text": {
        "attention/out": "text_encoder.encoder.layer.{}.attention.output.adapter",
        "mlp/fc2": "text_encoder.encoder.layer.{}.output.adapter",
    },
}


def read_adapters(
    names: Collection[str], kind: Kind, read: Callable[[str], Float32[np.ndarray, "..."]]
) -> dict[str, Float32[np.ndarray, "L ..."]]:
    """The adapters of one tower by our paths, `blocks/norm1/adapter/down/kernel` [L, d, d / r].

    Args:
      names: of all tensors in the file.
      kind: which tower.
      read: a tensor by its name, f32.

    Returns:
      Leaves with the blocks along the first axis; none where the tower has no adapters.
    """
    found: dict[str, Float32[np.ndarray, "L ..."]] = {}
    for path, place in _PLACES[kind].items():
        pattern = re.escape(place).replace(r"\{\}", r"\d+") + r"\.down_sampler\.weight"
        depth = sum(bool(re.fullmatch(pattern, name)) for name in names)
        for ours, theirs in (("down", "down_sampler"), ("up", "up_sampler")):
            layers = [f"{place.format(i)}.{theirs}" for i in range(depth)]
            if layers:
                root = f"blocks/{path}/adapter/{ours}"
                found[f"{root}/kernel"] = np.stack([read(f"{n}.weight").T for n in layers])
                found[f"{root}/bias"] = np.stack([read(f"{n}.bias") for n in layers])
    return found
