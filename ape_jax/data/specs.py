"""Opens what a config names (`pairs.jsonl`, `a-{000..003}.tar`, `tfds:...`): pairs or rows."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from ape_jax.config.sections import mixtures
from ape_jax.data import split
from ape_jax.data.formats import registry
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.places import sources
from ape_jax.data.table import look, store
from ape_jax.errors import UserError
from ape_jax.parallel import hosts


def open_pairs(
    spec: str | os.PathLike, *, key: str = "data.pairs", reading: Reading | None = None
) -> Pairs:
    """Opens pairs of any format and checks every row, before anything is decoded.

    The rows of one image are one pair with several captions (in order, exact duplicates dropped,
    surrounding white space removed). Images are the same where their path is, or where they are
    stored inside of files and their bytes are equal. The default id is the image's path as seen
    from the pairs file, or the shard and member, or the split's index.

    Example:
      pairs = open_pairs("pairs.jsonl")
      pairs[0].captions, pairs[0].image.name

    Args:
      spec: `*.jsonl`, `*.csv`, `*.tsv`, `*.parquet`, `*.tar`, a brace pattern of one of these,
        `tfds:NAME[/CONFIG]:SPLIT`, `demo:NAME[/LANGUAGE]:SPLIT`, `features:FILES`, `part:...`
        (`data.split`), or of a format that a plug-in has registered.
      key: the config key to name in messages.
      reading: which columns, and what happens to rows that cannot be used; None stops at them.

    Returns:
      The pairs; `VectorPairs` for `features:`.

    Raises:
      UserError: whatever a spec or a row can have wrong; names the file and line.
    """
    reading = reading or Reading()
    written = _checked(spec, key)
    if written.startswith(split.PREFIX):
        part = split.parse(written, key)
        return split.take(part, open_pairs(part.spec, key=key, reading=reading), key)
    if (opened := registry.opens(written)) is not None:
        if names := [name for asked in reading.columns.values() for name in asked]:
            hosts.say(
                f"{key}: {written!r} holds arrays whose names its format defines; "
                f"{', '.join(map(repr, names))} of data.columns is not looked for"
            )
        return opened(written, key)
    table = store.make_or_find(
        source(written, key), written, key=key, columns=reading.columns, again=reading.again
    )
    good, images = look.look(table, written) if reading.look else (None, ())
    problems = table.found_broken().with_images(images)
    problems.check(reading, key, written)
    if len(problems):
        hosts.say(f"{key}: {problems}; the first: {problems.first()[0]}")
    kept = None if good is None or good.all() else np.flatnonzero(good)
    pairs = Pairs(table, written, kept, problems)
    if not len(pairs):
        raise UserError(f"{key}: {written!r} holds no pair that can be used: {problems}")
    return pairs


def _checked(spec: str | os.PathLike, key: str) -> str:
    if not isinstance(spec, str | os.PathLike) or not os.fspath(spec):
        raise UserError(f"{key}: found {spec!r}; write {registry.supported()}")
    return os.fspath(spec)


def source(spec: str, key: str) -> list[store.Part]:
    """The files of a spec, each with its format; of a mixture with the weight of their source.

    Raises:
      UserError: an unknown form, a file that is missing, or a source that stands alone.
    """
    mixture = mixtures.parse(spec, key)
    weights = mixture.weights or [None] * len(mixture.specs)
    parts: list[store.Part] = []
    for one, weight in zip(mixture.specs, weights, strict=True):
        if len(mixture.specs) > 1 and (one.startswith(split.PREFIX) or registry.opens(one)):
            raise UserError(
                f"{key}: {one!r} cannot be one of several sources; name files of images and texts"
            )
        found = sources.parts_of(one, key)
        parts += [dataclasses.replace(part, weight=weight) for part in found]
    return parts
