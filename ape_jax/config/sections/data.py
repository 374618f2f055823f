"""Sections of pairs, their features and how both are augmented."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

from ape_jax.config.fields import (
    Field,
    automatic,
    choice,
    flag,
    integer,
    is_colour,
    is_columns,
    is_crop,
    is_randaugment,
    is_specs,
    is_words,
    number,
    string,
)
from ape_jax.config.section import Section, key
from ape_jax.config.sections import mixtures

Dtype = Literal["bfloat16", "float32"]
OnError = Literal["error", "skip"]
CachePlace = Literal["auto", "device", "host", "disk"]
Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The pairs, and how their images are read."""

    pairs: str = key(
        dataclasses.replace(
            string(expects="pairs: a file, tfds:NAME:SPLIT or demo:NAME:SPLIT"),
            canonical=mixtures.text_of,
        ),
        "What is trained on: a spec, a list of specs, or a mapping from specs to weights.",
    )
    images: str = key(
        string(expects="images: a folder, a pattern, a .txt of paths, or pairs"),
        "Images without captions, for the uses that `unpaired` names; '' is none.",
    )
    texts: str = key(
        string(expects="texts: a .txt with a line each, a table, or pairs"),
        "Texts without images, for the uses that `unpaired` names; '' is none.",
    )
    sample: int = key(
        integer(0, 0),
        "So many of the pairs, a random sample keyed by seed that grows with the number; 0 is all.",
    )
    split: float = key(
        number(0.0, 0.0, 0.5),
        "Share of the images of `pairs` that is held out, as the evaluation 'held-out'; 0 is none.",
    )
    eval: Mapping[str, str] = key(
        Field(
            {},
            "a mapping from names to pairs, {'test': 'pairs.jsonl'}",
            is_specs,
            canonical=mixtures.texts_of,
        ),
        "What is evaluated on, by name.",
    )
    domain: str = key(
        string("", "'source', a column of the pairs or ''"),
        "What tells styles or makers apart where the pairs choose layers or steps, so that folds "
        "leave one out: a column, or 'source' for each file of `pairs`; '' takes all for one.",
    )
    on_error: OnError = key(
        choice(*get_args(OnError)),
        "Whether rows and images that cannot be used end the run, or are left out and counted.",
    )
    max_skipped: float = key(
        number(0.05, 0.0, 1.0),
        "Share of the rows above which leaving out ends the run, too.",
        harmless=True,
    )
    columns: Mapping[str, str | tuple[str, ...]] = key(
        Field(
            {}, "a mapping of image, captions, id, label, negatives to names of columns", is_columns
        ),
        "Names of columns, where they are not found by themselves; several by commas.",
    )
    language: str = key(
        string("", "a column of the pairs with the language of captions, 'auto' or ''"),
        "Language of each caption, whose mean is taken off: a column, or 'auto' for the script of "
        "its letters; '' takes all captions for one language.",
    )
    background: Colour = key(
        Field((255, 255, 255), "three integers from 0 to 255", is_colour),
        "Colour behind transparent images.",
    )
    workers: int = key(integer(2, 1, 256), "Threads that read and decode images.", harmless=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    """Augmentations of training pairs; () turns one off."""

    crop: tuple[float, ...] = key(
        Field((), "() or two areas, 0 < low <= high <= 1", is_crop),
        "Random crops: smallest and largest share of the area.",
    )
    flip: bool = key(
        flag(False), "Mirrors half of the images; not for pictures of text or of left and right."
    )
    randaugment: tuple[float, ...] = key(
        Field((), "() or (operations, magnitude up to 10)", is_randaugment),
        "RandAugment: operations an image, and their magnitude.",
    )
    words: tuple[float, ...] = key(
        Field((), "() or (variants from 1 to 64, rate between 0 and 1)", is_words),
        "Further training captions with words left out: so many of each, and the rate.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig(Section):
    """Features of frozen towers: what is encoded once, and where it is kept."""

    views: int = key(
        automatic(integer(1, 0, 1000), "the number of pairs"),
        "How often a frozen image is encoded: 0 anew in every step, 1 clean, K augmented views.",
    )
    seed: int = key(
        integer(0, 0, 2**32 - 1),
        "Keys the views, apart from the run's seed, so that runs share them.",
    )
    text: bool = key(
        flag(True),
        "Whether captions of a frozen text tower are encoded once, or anew in every step.",
    )
    dtype: Dtype = key(choice(*get_args(Dtype)), "What cached features are stored in.")
    dir: str = key(
        string("", "a directory, '' for the cache folder's own, or 'none'"),
        "Where features are kept; '' is `features` in the cache folder, 'none' memory only.",
        harmless=True,
    )
    missing: Literal["encode", "error"] = key(
        choice("encode", "error"),
        "'error' stops where features would have to be encoded.",
        harmless=True,
    )
    place: CachePlace = key(
        choice(*get_args(CachePlace)),
        "Where features live in training: on devices, in the host's memory, or in files, read by "
        "rows; 'auto' is the first of these where they fit.",
        harmless=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentConfig(Section):
    """Augmentation of cached features: Beta's alpha of the mixup, standard deviation, rate."""

    mixup: float = key(
        number(0.0, 0.0, 100.0),
        "Mixes the features of two pairs, with Beta's alpha; 0 turns it off.",
    )
    noise: float = key(number(0.0, 0.0, 100.0), "Standard deviation of noise on features.")
    dropout: float = key(
        automatic(number(0.0, 0.0, 0.99), "the number of pairs"),
        "Rate of features that are dropped in training.",
    )
