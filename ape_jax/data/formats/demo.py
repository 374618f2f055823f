"""The demo's own pairs: `demo:STYLE[/LANGUAGE]:SPLIT` and `demo:icons:SPLIT`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ape_jax.data.formats import tfds
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.records import Record
from ape_jax.demo.emoji import pairs as emoji
from ape_jax.demo.icons import pairs as icons
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef

_DEMO = re.compile(
    r"(?P<style>[^/:]+)(/(?P<language>[^/:]+))?:(?P<split>[^/:\[]+)(?P<slice>\[[^\[\]]*\])?"
)


def read_demo(spec: str, wanted: Sequence[str], key: str) -> Iterator[Record]:
    """Reads the demo's pairs: captions, and the concept as label.

    Emoji are `demo:STYLE[/LANGUAGE]:SPLIT`, icons `demo:icons:SPLIT`; a split may be a slice such
    as `train[:1000]` or `train[:10%]`, which is a random sample: records lie in hashed order.

    Args:
      spec: as above.
      wanted: not used: every record has a caption and a label.
      key: the config key to name in messages.

    Raises:
      UserError: there is no such style, language or split, or the demo cannot be prepared.
    """
    match = _DEMO.fullmatch(spec.removeprefix("demo:"))
    if match is None:
        raise UserError(f"{key}: {spec!r} is not complete; write demo:STYLE[/LANGUAGE]:SPLIT")
    style, language, split = match["style"], match["language"] or "en", match["split"]
    is_icons = style == "icons"
    for part, value, known in (
        ("style", style, (*emoji.STYLES, "icons")),
        ("language", language, ("en",) if is_icons else emoji.ALL_LANGUAGES),
        ("split", split, icons.SPLITS if is_icons else emoji.SPLITS),
    ):
        if value not in known:
            raise UserError(
                f"{key}: {spec!r}: the {part} {value!r} is unknown; write one of {', '.join(known)}"
            )
    split += match["slice"] or ""
    return _icons(spec, split, key) if is_icons else _emoji(spec, style, language, split, key)


def _emoji(spec: str, style: str, language: str, split: str, key: str) -> Iterator[Record]:
    try:
        pairs = emoji.read_pairs(style, language, split)
    except UserError as e:
        raise UserError(f"{key}: {spec!r}: {e}") from e
    for i, (png, captions, name, concept) in enumerate(pairs):
        where = f"{spec}:{i} ({name})"
        fields = {"captions": captions, "label": concept}
        yield Record(where, ImageRef(png, where, len(png)), name, name, fields)


def _icons(spec: str, split: str, key: str) -> Iterator[Record]:
    """Images are read when they are needed: all of them would fill 100 MB."""
    source = tfds.data_source(icons.open_builder(), split, spec, key)
    for i, example in tfds.examples(source):
        name = _text(example["id"])
        where = f"{spec}:{i} ({name})"
        fields = {"caption": _text(example["caption"]), "label": _text(example["concept"])}
        ref = ImageRef(functools.partial(tfds.image_bytes, source, i), where, len(example["image"]))
        yield Record(where, ref, name, name, fields)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


DEMO = PairsFormat(name="demo", spec="demo:NAME[/LANGUAGE]:SPLIT", prefix="demo:", read=read_demo)
