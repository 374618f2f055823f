"""Provenance of a checkpoint: the names and hashes of its towers and pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.data import sampling
from ape_jax.data.pairs import Pairs
from ape_jax.errors import UserError
from ape_jax.features.fingerprint import preparation
from ape_jax.runs.build import Towers

SETTINGS = "settings"  # In a checkpoint's `meta`.
_SHAPING = (
    *("image.", "text.", "peft.", "embed", "method", "seed"),
    *("optim.ema", "eval.keep", "start.weights"),
)
_BY_DIGEST = ("image.tower", "text.tower")


def meta(
    config: Config,
    towers: Towers,
    pairs: Pairs | None = None,
    unpaired: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a checkpoint holds instead of towers and data: their names and hashes.

    Args:
      config: the resolved config.
      towers: its towers.
      pairs: the training pairs, None where they do not matter.
      unpaired: digests of the unpaired `images` and `texts`, and of the free pairs (`classifier`).
    """
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
    for name, digest in (unpaired or {}).items():
        if name == "classifier":
            spec = config.classifier.names or config.image.tower
            found["free pairs"] = {"spec": spec, "digest": digest}
        else:
            found[f"unpaired {name}"] = {"spec": config.data[name], "digest": digest}
    return found


def settings(config: Config) -> dict[str, Any]:
    """The config values that decide what a finished model makes of an image or a text."""
    free = config_lib.harmless(type(config)).union(_BY_DIGEST)
    flat = {
        key: value
        for key, value in config_lib.flatten(config).items()
        if key.startswith(_SHAPING) and key not in free
    }
    return json.loads(json.dumps(flat))


def check_settings(config: Config, meta: Mapping[str, Any], where: str) -> None:
    """Refuses a config that is not the one that a checkpoint was saved with.

    Args:
      config: as it was read.
      meta: of the checkpoint; those of earlier versions hold no settings.
      where: the file of the config.

    Raises:
      UserError: naming the first key that differs.
    """
    ours, saved = settings(config), meta.get(SETTINGS, {})
    for key, value in saved.items():
        if key in ours and ours[key] != value:
            raise UserError(
                f"--workdir: {where} says {key}={ours[key]!r}, but its checkpoint was saved with "
                f"{key}={value!r}; the file is damaged or was edited: write {value!r} there"
            )
