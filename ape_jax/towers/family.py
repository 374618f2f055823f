"""An architecture family, as its own file declares it.

A family is declared in its own file: how its config.json reads, which module it is, what its
tensors are called in files, how its inputs are prepared. Adding one touches no other code than
the lists `VISION` (vision/families.py) and `TEXT` (text/families.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.linen as nn

from ape_jax.errors import UserError
from ape_jax.towers.files.names import NameTable
from ape_jax.towers.tower import Kind, TowerConfig


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture family.

    Attributes:
      name: for messages and `TowerConfig.family`.
      kind: "image" or "text".
      model_types: value of `model_type` in config.json -> the key of the section that describes
        this tower, or None if it is the top level (`{"clip": "vision_config",
        "clip_vision_model": None}`).
      parse: (that section as `Fields`) -> the family's TowerConfig.
      module: (config, dtype=, param_dtype=, unroll=) -> the Flax module (see tower.py for the
        methods it must have).
      tables: the ways its tensors are named in files; the one that fits a file best is used.
      prepare: (directory or None, config, options) -> what turns raw inputs into a batch; options
        are those of `towers.load` that are not None (`image_size`, `max_length`, `prefix`).
      resize: (params, config from the file, config asked for) -> params; for load options that
        change parameter shapes, such as another image size.
      adapt: (config, options) -> config, with the load options applied.
    """

    name: str
    kind: Kind
    model_types: Mapping[str, str | None]
    parse: Callable[[Fields], TowerConfig]
    module: Callable[..., nn.Module]
    tables: tuple[NameTable, ...]
    prepare: Callable[[Path | None, Any, Mapping[str, Any]], Callable[..., Any]]
    adapt: Callable[[Any, Mapping[str, Any]], TowerConfig] = field(default=lambda c, o: c)
    resize: Callable[[dict, Any, Any], dict] = field(default=lambda params, old, new: params)


class Fields:
    """A section of a config.json, read with type checks: `fields.integer("hidden_size", 768)`.

    Every error names the file and the key. Defaults are those of transformers' config classes,
    because config.json files leave default values out.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        label: str,
        *,
        parent: Mapping[str, Any] | None = None,
        directory: Path | None = None,
    ):
        self.values = values
        self.label = label
        self.parent = parent if parent is not None else values
        """The whole config.json; differs from `values` in a two-tower file."""
        self.directory = directory
        """Where the config.json lies, if it lies anywhere."""

    def _get(self, key: str, default: Any, types: tuple[type, ...], wanted: str) -> Any:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise UserError(f"{self.label}: {key!r} is missing; write {wanted}")
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise UserError(f"{self.label}: {key!r} is {value!r}; write {wanted}")
        return value

    def integer(self, key: str, default: int | None = None, *, minimum: int = 1) -> int:
        """A whole number >= `minimum`."""
        wanted = f"a whole number, {minimum} or more"
        value = self._get(key, default, (int,), wanted)
        if value < minimum:
            raise UserError(f"{self.label}: {key!r} is {value!r}; write {wanted}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        return float(self._get(key, default, (int, float), "a number"))

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        return self._get(key, default, (bool,), "true or false")

    def choice(self, key: str, options: Any, default: str | None = None) -> str:
        """One of the names in `options`."""
        names = sorted(options)
        wanted = f"one of {', '.join(names)}"
        value = self._get(key, default, (str,), wanted)
        if value not in names:
            raise UserError(f"{self.label}: {key!r} is {value!r}; write {wanted}")
        return value

    def error(self, sentence: str) -> UserError:
        """A UserError about this file."""
        return UserError(f"{self.label}: {sentence}")
