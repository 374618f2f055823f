"""Layerwise adapters in what LilT saves: their names there, and where ours lie.

They stand in the model's file among the tensors of its towers, and are none of a tower's own
(`align.tuning.peft` puts them in from outside).

References:
  github.com/codezakh/LilT, `models/conventional_adapter.py`, `vit.py` and `med.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

import numpy as np
from jaxtyping import Float32

from ape_jax.towers.files.names import linear, to_param_arrays
from ape_jax.towers.tower import Kind

NAMES = r".+\.adapter[12]?\.(down|up)_sampler\.(weight|bias)"
"""The tensors of adapters, by a regular expression over whole names."""

_TEXT = "text_encoder.encoder.layer.{i}"
_PLACES: Mapping[Kind, Mapping[str, str]] = {
    "image": {
        "visual_encoder.blocks.{i}.adapter1": "blocks/norm1",
        "visual_encoder.blocks.{i}.adapter2": "blocks/norm2",
    },
    "text": {
        f"{_TEXT}.attention.output.adapter": "blocks/attention/out",
        f"{_TEXT}.output.adapter": "blocks/mlp/fc2",
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
    for theirs, ours in _PLACES[kind].items():
        start, end = theirs.split("{i}")
        pattern = rf"{re.escape(start)}\d+{re.escape(end)}\.down_sampler\.weight"
        depth = sum(bool(re.fullmatch(pattern, name)) for name in names)
        for part in ("down", "up") if depth else ():
            for rule in linear(f"{theirs}.{part}_sampler", f"{ours}/adapter/{part}"):
                layers = (read(rule.file.replace("{i}", str(i))) for i in range(depth))
                found[rule.paths[0]] = np.stack([to_param_arrays(rule, x)[0] for x in layers])
    return found
