"""The demo's own pairs: `demo:STYLE[/LANGUAGE]:SPLIT` and `demo:icons:SPLIT`.

Captions of several languages are `demo:STYLE/en+ja:SPLIT` or `demo:STYLE/all:SPLIT`; the field
`language` says which each caption has.

A split is `train`, `validation` or `test`, or one of a numbered partition, `test@3`
(`demo.emoji.partitions`, `demo.icons.partitions`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from ape_jax.data.formats import tfds
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.rows import Ask, FileRows, Numbered, Row, Verbatim
from ape_jax.demo import numbered
from ape_jax.demo.emoji import pairs as emoji
from ape_jax.demo.icons import listing
from ape_jax.demo.icons import pairs as icons
from ape_jax.errors import UserError

_DEMO = re.compile(
    r"(?P<style>[^/:]+)(/(?P<language>[^/:]+))?:(?P<split>[^/:\[]+)(?P<slice>\[[^\[\]]*\])?"
)


def read_demo(spec: str, ask: Ask) -> FileRows:
    """Reads the demo's pairs: captions, the concept as label, and who drew them.

    Emoji are `demo:STYLE[/LANGUAGE]:SPLIT`, icons `demo:icons:SPLIT`; a split may be a slice such
    as `train[:1000]` or `train[:10%]`, which is a random sample: records lie in hashed order. Rows
    of emoji have the further fields `language`, `style` and `concept`, those of icons `set`,
    `maker` and `concept`.

    Args:
      spec: as above.
      ask: every record has captions and a label.

    Raises:
      UserError: there is no such style, language or split, or the demo cannot be prepared.
    """
    key, match = ask.key, _DEMO.fullmatch(spec.removeprefix("demo:"))
    if match is None:
        raise UserError(f"{key}: {spec!r} is not complete; write demo:STYLE[/LANGUAGE]:SPLIT")
    style, language, split = match["style"], match["language"] or "en", match["split"]
    is_icons = style == "icons"
    splits = icons.SPLITS if is_icons else emoji.SPLITS
    languages = emoji.LANGUAGES if "+" in language else emoji.ALL_LANGUAGES
    languages = ("en",) if is_icons else languages
    part_of = numbered.parse(split, splits)
    for part, value, known in (
        ("style", style, (*emoji.STYLES, "icons")),
        *(("language", name, languages) for name in language.split("+")),
        ("split", split, splits),
    ):
        if value in known or (part == "split" and part_of is not None):
            continue
        also = ", or of a partition, test@1" if part == "split" else ""
        raise UserError(
            f"{key}: {spec!r}: the {part} {value!r} is unknown; write one of "
            f"{', '.join(known)}{also}"
        )
    split += match["slice"] or ""
    if is_icons:
        return FileRows(rows=_icons(spec, split, key), named=True)
    try:
        pairs = emoji.read_named(style, language, split)
    except UserError as e:
        raise UserError(f"{key}: {spec!r}: {e}") from e
    # By number: drawings of two concepts may be equal, and are two images nevertheless.
    rows = (
        Row(
            f"{i} ({name})",
            {
                "image": Numbered(i, len(png)),
                "captions": [text for _, text in names],
                "language": [spoken for spoken, _ in names],
                "label": concept,
                "id": name,
                "style": style,
                "concept": concept,
            },
        )
        for i, (png, names, name, concept) in enumerate(pairs)
    )
    return FileRows(rows=rows, named=True)


def _icons(spec: str, split: str, key: str) -> Iterator[Row]:
    """Images are read when they are needed: all of them would fill 100 MB."""
    if (part := numbered.parse(split, icons.SPLITS)) is not None:
        yield from _listed_icons(spec, part, key)
        return
    source = tfds.data_source(icons.open_builder(), split, spec, key)
    for i, example in tfds.examples(source):
        name = _text(example["id"])
        fields = {
            "image": Numbered(i, len(example["image"])),
            "captions": Verbatim(_text(example["caption"])),
            "label": _text(example["concept"]),
            "id": name,
            "set": _text(example["set"]),
            "maker": _text(example["author"]),
            "concept": _text(example["concept"]),
        }
        yield Row(f"{i} ({name})", fields)


def _listed_icons(spec: str, part: numbered.Part, key: str) -> Iterator[Row]:
    listed = listing.read()
    for i, row in enumerate(_find(spec, part, key)):
        name = listed.id[row]
        fields = {
            "image": Numbered(i, listed.size[row]),
            "captions": Verbatim(listed.caption[row]),
            "label": listed.concept[row],
            "id": name,
            "set": listed.set[row],
            "maker": listed.maker[row],
            "concept": listed.concept[row],
        }
        yield Row(f"{i} ({name})", fields)


def _find(spec: str, part: numbered.Part, key: str) -> list[int]:
    try:
        return listing.find(part)
    except UserError as e:
        raise UserError(f"{key}: {spec!r}: {e}") from e


def open_images(spec: str, key: str) -> Callable[[int], bytes]:
    """The reader of drawings by number."""
    match = _DEMO.fullmatch(spec.removeprefix("demo:"))
    assert match is not None  # Its rows were read.
    split = match["split"] + (match["slice"] or "")
    if match["style"] != "icons":
        pairs = emoji.read_named(match["style"], match["language"] or "en", split)
        return lambda i: pairs[i][0]
    builder = icons.open_builder()
    if (part := numbered.parse(split, icons.SPLITS)) is None:
        source = tfds.data_source(builder, split, spec, key)
        return lambda i: tfds.image_bytes(source, i)
    listed, rows = listing.read(), _find(spec, part, key)
    sources = {name: tfds.data_source(builder, name, spec, key) for name in icons.SPLITS}
    return lambda i: tfds.image_bytes(sources[listed.split[rows[i]]], listed.number[rows[i]])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


DEMO = PairsFormat(
    name="demo",
    spec="demo:NAME[/LANGUAGE]:SPLIT",
    prefix="demo:",
    read=read_demo,
    images=open_images,
)
