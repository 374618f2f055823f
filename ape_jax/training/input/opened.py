"""The pairs of a run: opened, and checked against what the config asks of them."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from ape_jax.config import Config, automatic
from ape_jax.config.outside import PREFIX, is_precomputed
from ape_jax.data import sampling
from ape_jax.data.options import BY_SOURCE, Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.data.vectors import VectorPairs
from ape_jax.errors import UserError
from ape_jax.features.frontier import Sources
from ape_jax.towers.files.reading import say_once
from ape_jax.training import defaults
from ape_jax.training.captions import languages
from ape_jax.training.terms import free_pairs, unpaired

C = TypeVar("C", bound=Config)


def sources(config: Config) -> Sources:
    """Opens the training and evaluation pairs.

    Raises:
      UserError: for a file that is missing or malformed, or a batch larger than the data.
    """
    names = sorted(config.data.eval)
    found = Sources(
        train=_open(config, config.data.pairs, "data.pairs", domain=config.data.domain),
        evals={n: _open(config, config.data.eval[n], f"data.eval.{n}") for n in names},
        **unpaired.open_sources(config),
        free=free_pairs.open_source(config),
    )
    check(config, found)
    return found


def settled(config: C, found: Sources | None = None) -> tuple[C, Sources]:
    """Opens the pairs and settles what the config leaves to them (`training.defaults`).

    Args:
      config: a resolved config.
      found: its pairs, where they are open.

    Raises:
      UserError: as `sources`; where the settled values do not go with the others.
    """
    config = defaults.with_split(config)
    if found is None:
        found = sources(config)
    config = defaults.settled(config, found.train)
    check(config, found)
    return config, found


def check(config: Config, found: Sources) -> None:
    """Raises UserError for fewer training pairs than the config needs."""
    train = found.train
    if len(train) < 2:
        raise UserError(
            f"config.data.pairs: {config.data.pairs} holds {len(train)} pair; pairs are told apart "
            "from each other, so give at least 2"
        )
    if config.loss.hard and not train.num_negatives:
        raise UserError(
            f"config.loss.hard: {config.data.pairs} holds no negative captions; name a column "
            "'negatives', say which it is by data.columns={'negatives': NAME}, or write 0"
        )
    if config.trains and not config.loss.hard and train.num_negatives:
        say_once(
            f"{config.data.pairs}: {train.num_negatives:,} negative captions are not used; "
            "--config.loss.hard=1 trains on one of them an image and step"
        )
    if config.data.sample > len(train):
        raise UserError(
            f"config.data.sample: {config.data.pairs} holds {len(train)} pairs; write at most that "
            f"(0 takes all), found {config.data.sample}"
        )
    languages.check(config, train)
    if config.trains and config.train.batch != automatic.AUTO:
        sampling.check_batch(config.data.sample or len(train), config.train.batch)


def _open(config: Config, spec: str, key: str, domain: str = "") -> Pairs:
    """Opens a source; vectors must be as wide as the sides that take them."""
    reading = Reading.of(config.data)
    if domain not in ("", BY_SOURCE):  # Of what is evaluated on it does not matter.
        reading = dataclasses.replace(reading, columns={**reading.columns, "domain": (domain,)})
    pairs = open_pairs(spec, key=key, reading=reading)
    if not isinstance(pairs, VectorPairs):
        return pairs
    widths = {"image": pairs.image.shape[-1]}
    if (pairs.text is not None) != is_precomputed(config.text.tower):
        found = "words" if pairs.text is None else "vectors"
        raise UserError(
            f"config.{key}: the captions of {spec!r} are {found}; write a text.tower for those, "
            f"found {config.text.tower!r}"
        )
    if pairs.text is not None:
        widths["text"] = pairs.text.flat.shape[-1]
    for side, width in widths.items():
        if config.side(side).tower != f"{PREFIX}{width}":
            raise UserError(
                f"config.{side}.tower: the {side} vectors of {spec!r} are {width} wide; write "
                f"'{PREFIX}{width}', found {config.side(side).tower!r}"
            )
    return pairs
