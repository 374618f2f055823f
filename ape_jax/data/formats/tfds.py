"""TensorFlow Datasets without TensorFlow: `tfds:NAME[/CONFIG]:SPLIT`.

A builder that was prepared with `file_format="array_record"` is read by index
(`as_data_source`). Images stay encoded until they are needed.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.rows import Ask, FileRows, Numbered, Row, asked_fields
from ape_jax.errors import UserError

_SPEC = re.compile(r"(?P<name>[\w./-]+(:\d+\.\d+\.\d+)?):(?P<split>.+)")
_CAPTIONS = ("captions", "caption", "text")
_IDS = ("id", "image/id", "image_id")
_BLOCK = 64


def read_tfds(spec: str, ask: Ask) -> FileRows:
    """Reads every record of one split once, images encoded as they are stored.

    Captions are the feature `captions`, `caption` or `text`, or COCO's nested `captions/text`;
    labels the feature `label`, beside the builder's names for it as `label_names`.

    Args:
      spec: `tfds:NAME[/CONFIG][:VERSION]:SPLIT`; the split may be a slice such as `train[:10%]`.
        Builders are looked for in `TFDS_DATA_DIR`, by default `~/tensorflow_datasets`.
      ask: whether captions or labels are wanted.

    Raises:
      UserError: the data set, its split or its features are missing.
    """
    key = ask.key
    builder, split = _named(spec, key)
    found = builder.info.features  # Looks like a dictionary, but is no Mapping.
    features = dict(found.items()) if hasattr(found, "items") else {}
    if "image" not in features:
        names = ", ".join(map(repr, features)) or "none by name"
        raise UserError(
            f"{key}: {spec!r} has no feature 'image', found {names}; choose another data set"
        )
    feature = _wanted_feature(features, ask, spec)
    source = data_source(builder, split, spec, key)
    return FileRows(rows=_rows(source, features, feature, ask), named=True)


def _rows(source: Any, features: Mapping[str, Any], feature: str, ask: Ask) -> Iterator[Row]:
    classes = getattr(features[feature], "names", None) if ask.wanted == "label" else None
    id_feature = next((n for n in _IDS if n in features), None)
    for i, example in examples(source):
        fields = {
            **{name: _plain(value) for name, value in asked_fields(example, ask).items()},
            "image": Numbered(i, len(example["image"])),
            ask.wanted: _plain(example[feature]),
        }
        if classes:
            fields["label_names"] = classes
        if id_feature:
            fields["id"] = _plain(example[id_feature])
        yield Row(str(i), fields, str(i))


def _named(spec: str, key: str) -> tuple[Any, str]:
    """The builder and the split of a spec."""
    match = _SPEC.fullmatch(spec.removeprefix("tfds:"))
    if match is None:
        raise UserError(f"{key}: {spec!r} names no split; write tfds:NAME[/CONFIG]:SPLIT")
    return _builder(match["name"], spec, key), match["split"]


def open_images(spec: str, key: str) -> Callable[[int], bytes]:
    """The reader of a split's images by number."""
    source = data_source(*_named(spec, key), spec, key)
    return lambda i: image_bytes(source, i)


def stamp(spec: str, key: str) -> str:
    """Sizes and times of a data set's files."""
    folder = pathlib.Path(_named(spec, key)[0].data_dir)
    files = ((p.name, p.stat()) for p in sorted(folder.iterdir()) if p.is_file())
    return f"tfds {folder} {[(name, s.st_size, s.st_mtime_ns) for name, s in files]}"


def examples(source: Any) -> Iterator[tuple[int, Any]]:
    """Yields all examples with their index; four times as fast in blocks as one by one."""
    for start in range(0, len(source), _BLOCK):
        block = range(start, min(start + _BLOCK, len(source)))
        yield from zip(block, source.__getitems__(list(block)))


def image_bytes(source: Any, i: int) -> bytes:
    """The encoded image of one example."""
    return source[i]["image"]


def _builder(name: str, spec: str, key: str) -> Any:
    import tensorflow_datasets as tfds

    folder = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    try:
        return tfds.builder(name, data_dir=os.path.expanduser(folder), try_gcs=False)
    except Exception as e:  # DatasetNotFoundError, ValueError on a config, a missing dependency.
        reason = " ".join(str(e).split(". ")[0].split())[:160]
        raise UserError(
            f"{key}: {spec!r}: no prepared data set {name!r} in {folder} ({reason}); prepare it "
            "with `tfds build --file_format=array_record` or set TFDS_DATA_DIR"
        ) from e


def _wanted_feature(features: Mapping[str, Any], ask: Ask, spec: str) -> str:
    accepted = ("label",) if ask.wanted == "label" else _CAPTIONS
    for name in (*ask.columns.get(ask.wanted, ()), *accepted):
        if name in features:
            return name
    raise UserError(
        f"{ask.key}: {spec!r} has none of the features {', '.join(map(repr, accepted))}, found "
        f"{', '.join(map(repr, features))}; choose another data set"
    )


def data_source(builder: Any, split: str, spec: str, key: str) -> Any:
    """A split of a prepared data set, read by index.

    Raises:
      UserError: the split is missing, or was prepared as TFRecord.
    """
    import tensorflow_datasets as tfds

    base = re.split(r"[^\w-]", split, maxsplit=1)[0]
    known = sorted(builder.info.splits)
    if known and base not in known:
        raise UserError(f"{key}: {spec!r}: the split {base!r} is not there; write one of {known}")
    try:
        return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    except Exception as e:  # Not prepared, prepared as TFRecord, or a slice out of range.
        reason = " ".join(str(e).split(". ")[0].split())[:160]
        what = f"cannot be read by index ({reason})" if known else "is not on this machine"
        advice = f"{what}; prepare it with `tfds build --file_format=array_record`, where "
        advice += "TensorFlow is"
        if isinstance(e, ValueError) and "[" in split:
            advice = f"has no such slice ({reason}); write one such as {base}[:100]"
        raise UserError(f"{key}: {spec!r} {advice}") from e


def _plain(value: Any) -> Any:
    """numpy scalars, arrays and nested captions to plain values."""
    if isinstance(value, Mapping):  # coco_captions: {"text": [...], "id": [...]}
        value = value.get("text", value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


TFDS = PairsFormat(
    name="tfds",
    spec="tfds:NAME[/CONFIG]:SPLIT",
    prefix="tfds:",
    read=read_tfds,
    images=open_images,
    stamp=stamp,
)
