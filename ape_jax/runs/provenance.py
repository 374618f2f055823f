"""Provenance of a checkpoint: the names and hashes of its towers and pairs."""

from __future__ import annotations

from typing import Any

from ape_jax.config import Config
from ape_jax.data import sampling
from ape_jax.data.pairs import Pairs
from ape_jax.features.fingerprint import preparation
from ape_jax.runs.build import Towers


def meta(config: Config, towers: Towers, pairs: Pairs | None = None) -> dict[str, Any]:
    """What a checkpoint holds instead of towers and data: their names and hashes."""
    found = {
        "image tower": {"spec": config.image.tower, "digest": towers.image.digest},
        "text tower": {"spec": config.text.tower, "digest": towers.text.digest},
        # The same tensors under another tokenizer or image size would be wrong without a word.
        "image preparation": preparation(towers.image.prepare.transform),
        "text preparation": preparation(towers.text.prepare),
    }
    if pairs is not None:
        found["pairs"] = {"spec": config.data.pairs, "digest": pairs.digest}
        # Another would resume to other bits.
        found["order of the pairs"] = sampling.version(config.data.sample or len(pairs))
    return found
