"""Settles the layers and poolings that a config leaves to the training pairs."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from ape_jax import config as config_lib
from ape_jax.align.layers import Choice, Reading, choose
from ape_jax.config import Config
from ape_jax.config.rules.layers import open_keys
from ape_jax.data.pairs import Pairs
from ape_jax.features.dataset import FeatureStore
from ape_jax.parallel import hosts, verdicts
from ape_jax.runs.directory import layers_record
from ape_jax.storage import files
from ape_jax.training.layers.question import ask, domain_digest

C = TypeVar("C", bound=Config)


def settled(
    config: C, train: Pairs, path: pathlib.Path | None = None, store: FeatureStore | None = None
) -> tuple[C, dict[str, Any] | None]:
    """The config with its open layers and poolings settled; says what they are.

    Where the work directory has a record of the same question, its answer is taken. Several
    processes take that of the first.

    Args:
      config: a resolved config.
      train: its training pairs.
      path: the work directory; None where there is none yet.
      store: features that this process has already.

    Returns:
      The config, and the record for `layers.json`; None where nothing was open.

    Raises:
      UserError: where no choice can be made; where the settled values do not go with the others.
    """
    keys = open_keys(config)
    if not keys:
        return config, None
    digests = (train.digest, domain_digest(config, train))
    question = layers_record.asked(config, " ".join(filter(None, digests)))
    found = None
    if path is not None and hosts.is_first():
        found = layers_record.read(path, question)
    record = _of_first(found)
    if record is None:
        made = choice_record(config, train, store or FeatureStore())
        record = _of_first({"asked": question, **made}) or {}
        hosts.say(f"chosen by {record['images']:,} images: {_words(record['chosen'])}")
    values = layers_record.values({"chosen": {k: record["chosen"][k] for k in keys}})
    if not config.train.folds:  # Nothing else asks for it.
        values["data.domain"] = ""
    settled_config = config_lib.resolve({**config_lib.flatten(config), **values}, type(config))
    return settled_config, record


def _of_first(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The first process's record, on all of them, as it is read from the file."""
    text = verdicts.from_first("" if record is None else json.dumps(record))
    return files.parse_json(text, layers_record.FILE) if text else None


def choice_record(config: Config, train: Pairs, store: FeatureStore) -> dict[str, Any]:
    """Makes the choice.

    Args:
      config: a resolved config.
      train: its training pairs.
      store: features that this process has already.

    Returns:
      `chosen` by key, the scores (`Choice.record`), and the seconds of the pass and of the scores.

    Raises:
      UserError: as `settled`.
    """
    began = time.monotonic()
    question = ask(config, train, store)
    encoded = time.monotonic()
    choice = choose(question, seed=config.seed, say=hosts.say)
    seconds = {"pass": encoded - began, "scores": time.monotonic() - encoded}
    return {
        "chosen": _values(config, choice),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        **choice.record(),
    }


def _values(config: Config, choice: Choice) -> dict[str, Any]:
    readings: Mapping[str, Reading] = {"image": choice.image, "text": choice.text}
    found: dict[str, Any] = {}
    for side, reading in readings.items():
        layer = reading.layer
        found[f"{side}.layer"] = list(layer) if isinstance(layer, tuple) else layer
        found[f"{side}.pooling"] = reading.pooling
    return {key: found[key] for key in open_keys(config)}


def _words(chosen: Mapping[str, Any]) -> str:
    def shown(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, list) else str(value)

    return ", ".join(f"{key}={shown(value)}" for key, value in chosen.items())
