"""The formats of pairs by name."""

from __future__ import annotations

import os

from ape_jax.config.registry import Registry
from ape_jax.data import split
from ape_jax.data.formats.format import Opener, PairsFormat
from ape_jax.errors import UserError

_PUBLISHED = {
    name: f"ape_jax.data.formats.published.{place}"
    for name, place in {
        "coco": "coco:COCO",
        "karpathy": "karpathy:KARPATHY",
        "flickr_token": "flickr:TOKEN",
        "flickr_bars": "flickr:BARS",
        "flickr_commas": "flickr:COMMAS",
        "conversations": "conversations:CONVERSATIONS",
        "textcaps": "textcaps:TEXTCAPS",
        "dreamlip": "dreamlip:DREAMLIP",
        "roco": "roco:ROCO",
        "roco_table": "roco:ROCO_TABLE",
        "medicat": "medicat:MEDICAT",
        "imagenet_list": "imagenet:LIST",
        "imagenet_solution": "imagenet:SOLUTION",
        "class_folders": "class_folders:CLASS_FOLDERS",
        "addresses": "addresses:ADDRESSES",
    }.items()
}
"""Layouts of data sets as they are published, which are recognised by a look."""

FORMATS: Registry[PairsFormat] = Registry(
    "pairs format",
    {
        "jsonl": "ape_jax.data.formats.tables.json:JSONL",
        "json": "ape_jax.data.formats.tables.json:JSON",
        "csv": "ape_jax.data.formats.tables.csv:CSV",
        "spreadsheet": "ape_jax.data.formats.tables.opened:SPREADSHEET",
        "parquet": "ape_jax.data.formats.tables.parquet:PARQUET",
        "arrow": "ape_jax.data.formats.tables.arrow:ARROW",
        "saved": "ape_jax.data.formats.tables.arrow:SAVED",
        "hf": "ape_jax.data.formats.tables.hub:HUB",
        "webdataset": "ape_jax.data.formats.webdataset:WEBDATASET",
        "folder": "ape_jax.data.formats.folder:FOLDER",
        "tfds": "ape_jax.data.formats.tfds:TFDS",
        "demo": "ape_jax.data.formats.demo:DEMO",
        "features": "ape_jax.data.formats.features:FEATURES",
        **_PUBLISHED,
    },
)


def find(spec: str, *, key: str) -> PairsFormat:
    """The format of a spec, by its prefix, else by its suffix.

    Args:
      spec: as written in a config.
      key: the config key to name in messages.

    Raises:
      UserError: no format is recognised; lists those that there are.
    """
    formats = FORMATS.values()
    named = [format for format in formats if _has_prefix(spec, format)]
    found = named or _by_look(spec) or _by_suffix(spec)
    if not found:
        raise UserError(f"{key}: {spec!r} is of no known form; write {supported()}")
    return found[0]


def _by_look(spec: str) -> list[PairsFormat]:
    """Formats that recognise a file or folder by a look at it."""
    looking = [format for format in _by_suffix(spec, looks=True) if format.matches is not None]
    if not looking or "\0" in spec or not os.path.exists(spec):
        return []
    return [format for format in looking if _matches(format, spec)]


def _matches(format: PairsFormat, path: str) -> bool:
    """A look: what cannot be opened is said by whoever reads it."""
    try:
        return format.matches is not None and format.matches(path)
    except OSError:
        return False


def _by_suffix(spec: str, looks: bool = False) -> list[PairsFormat]:
    """Formats by the longest suffix of a spec; those that look, or those that need not."""
    name = "/" if os.path.isdir(spec) else spec.lower()
    lengths = {
        format.name: max((len(x) for x in format.suffixes if name.endswith(x)), default=0)
        for format in FORMATS.values()
        if (format.matches is not None) == looks
    }
    found = [format for format in FORMATS.values() if lengths.get(format.name)]
    return sorted(found, key=lambda format: -lengths[format.name])


def looked_at(path: str) -> PairsFormat | None:
    """The format that recognises a file or folder by a look at it."""
    return next(iter(_by_look(path)), None)


def by_suffix(path: str) -> PairsFormat | None:
    """The format of a file whose suffix is enough."""
    return next(iter(_by_suffix(path)), None)


def opens(spec: str) -> Opener | None:
    """What opens a spec whose format is not made of rows, as `features:` is not."""
    named = (f for f in FORMATS.values() if f.prefix and spec.startswith(f.prefix))
    return next((format.open for format in named), None)


def is_named(spec: str) -> bool:
    """Tests whether a spec begins with the prefix of a format, so that it is no path."""
    return spec.startswith(split.PREFIX) or any(
        _has_prefix(spec, format) for format in FORMATS.values()
    )


def _has_prefix(spec: str, format: PairsFormat) -> bool:
    """Tests for a format's prefix; hf://... is an address, and hf:NAME a data set."""
    rest = spec.removeprefix(format.prefix)
    return rest != spec and not rest.startswith("//")


def supported() -> str:
    """Lists the forms of specs: "*.jsonl, *.csv, ..."; layouts of published sets are one phrase."""
    shown = {name: format for name, format in FORMATS.items() if name not in _PUBLISHED}
    specs = [format.spec for format in shown.values()]
    named = next((i for i, format in enumerate(shown.values()) if format.prefix), len(specs))
    specs.insert(named, "a data set as it is published (COCO, Flickr30k, LLaVA, ...)")
    *most, last = specs
    return f"{', '.join(most)} or {last}"
