"""`layers.json` of a work directory: layers and poolings that its pairs have chosen, and why."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ape_jax import config as config_lib
from ape_jax.config import Config
from ape_jax.runs.directory import answers, recorded

FILE = "layers.json"
_KEYS = (
    *("image.tower", "text.tower", "image.layer", "text.layer", "image.pooling", "text.pooling"),
    *("image.size", "text.max_length", "text.prefix", "data.pairs", "data.sample", "data.domain"),
    "seed",
)


def asked(config: Config, digest: str) -> dict[str, Any]:
    """What a choice depends on: the keys before it was made, and the content of the pairs.

    Args:
      config: with the keys that are open.
      digest: of the training pairs.
    """
    flat = recorded.absolute(config_lib.flatten(config))
    return {key: _plain(flat[key]) for key in _KEYS} | {"pairs": digest}


def read(path: pathlib.Path, question: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of an earlier start with the same question; None where there is none.

    Args:
      path: the work directory.
      question: of `asked`.
    """
    return answers.read(path / FILE, question, _is_sound, "the layers are chosen again")


def write(path: pathlib.Path, record: Mapping[str, Any] | None, again: str) -> None:
    """Writes the record on the first process; nothing where nothing was chosen.

    Raises:
      UserError: the file cannot be written.
    """
    if record is not None:
        answers.write(path / FILE, record, again)


def values(record: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen values by key, as a config holds them."""
    return {
        key: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for key, value in record["chosen"].items()
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_sound(found: Mapping[str, Any]) -> bool:
    return isinstance(found["chosen"], dict)
