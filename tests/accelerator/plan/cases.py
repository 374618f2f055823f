"""The programs that are planned and timed: training steps, and the encoding that precedes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ape_jax.config import Config
from tests.accelerator.plan import here
from tests.accelerator.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A program by its name.

    Attributes:
      recipe: of the run.
      keys: of its config.
      part: 'step', or 'images' or 'captions' for a batch that is encoded.
    """

    recipe: str
    keys: Mapping[str, Any]
    part: str = "step"

    def config(self, settings: Settings) -> Config:
        """The run's."""
        return here.config(settings, self.recipe, **self.keys)


def _head(depth: int, width: int, batch: int, **more: Any) -> Case:
    keys = {"text.head.depth": depth, "text.head.width": width, "train.batch": batch, **more}
    return Case(recipe="ape", keys=keys)


def _encoding(part: str, rows: int, dtype: str = "bfloat16") -> Case:
    kinds = {"image.dtype": dtype, "text.dtype": dtype}
    return Case(recipe="ape", keys={"eval.batch": rows, **kinds}, part=part)


_CASES: Mapping[str, Case] = {
    "head 4 x 1024, 1,024 pairs": _head(4, 1024, 1024),
    "head 4 x 1024, 16,384 pairs": _head(4, 1024, 16_384),
    "head 6 x 4096, 4,096 pairs": _head(6, 4096, 4096),
    "head 6 x 4096, 16,384 pairs": _head(6, 4096, 16_384),
    "head 4 x 1024, sigmoid, 32,768 pairs": _head(4, 1024, 32_768, **{"loss.name": "sigmoid"}),
    "lit, 256 pairs": Case(recipe="lit", keys={"train.batch": 256}),
    "lilt, 64 pairs": Case(recipe="lilt", keys={"train.batch": 64}),
    "lilt, 256 pairs": Case(recipe="lilt", keys={"train.batch": 256}),
    "clip, 64 pairs": Case(recipe="clip", keys={"train.batch": 64}),
    "clip, 256 pairs": Case(recipe="clip", keys={"train.batch": 256}),
    "encoding 256 images": _encoding("images", 256),
    "encoding 64 images, float32": _encoding("images", 64, "float32"),
    "encoding 512 captions": _encoding("captions", 512),
}
_SMALL: Mapping[str, Case] = {
    "head 2 x 16, 16 pairs": _head(2, 16, 16),
    "encoding 4 captions": _encoding("captions", 4),
}


def of(settings: Settings) -> Mapping[str, Case]:
    """All of them, or two that are small."""
    return _SMALL if settings.small else _CASES
