"""From what a config says (`pairs.jsonl`, `a-{000..003}.tar`, `tfds:...`) to checked records."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence

from ape_jax.data.formats.jsonl import read_jsonl
from ape_jax.data.formats.tables import read_csv, read_parquet
from ape_jax.data.formats.tfds_source import read_demo, read_tfds
from ape_jax.data.formats.webdataset import read_tar
from ape_jax.data.records import Record
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageError, check_encoded
from ape_jax.terminal.progress import track

SUPPORTED = (
    "*.jsonl, *.csv, *.tsv, *.parquet, *.tar (or several, as in shard-{000..003}.tar), "
    "tfds:NAME[/CONFIG]:SPLIT or demo:NAME[/LANGUAGE]:SPLIT"
)
_MAX_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def read_records(spec: str | os.PathLike, *, wanted: Sequence[str], key: str) -> list[Record]:
    """Every record behind a spec; images are looked at (they exist, are not empty), not decoded.

    Args:
      spec: One of `SUPPORTED`.
      wanted: The fields of which one is needed: `("caption", "captions")` or `("label",)`.
      key: The config key to name in messages.

    Raises:
      UserError: An unknown form, a missing or damaged file, no records, missing images.
    """
    if not isinstance(spec, str | os.PathLike) or not os.fspath(spec):
        raise UserError(f"{key}: found {spec!r}; write {SUPPORTED}.")
    spec = os.fspath(spec)
    records = list(track(_records(spec, wanted, key), f"reading {spec}", None, "records"))
    if not records:
        raise UserError(f"{key}: {spec!r} holds no records; write at least one.")
    _check_images(records, spec)
    return records


def _records(spec: str, wanted: Sequence[str], key: str) -> Iterator[Record]:
    if spec.startswith("tfds:"):
        return read_tfds(spec, wanted=wanted, key=key)
    if spec.startswith("demo:"):
        return read_demo(spec, key=key)
    suffix = os.path.splitext(spec)[1].lower()
    if suffix not in (".jsonl", ".csv", ".tsv", ".parquet", ".tar"):
        raise UserError(f"{key}: {spec!r} is of no known form; write {SUPPORTED}.")
    paths = expand_braces(spec, key)
    missing = [p for p in paths if not os.path.isfile(p)]
    if missing:
        others = f" ({len(missing)} of {len(paths)} files are missing)" if len(paths) > 1 else ""
        raise UserError(f"{key}: there is no file {missing[0]!r}{others}; correct the path.")
    return itertools.chain.from_iterable(_read_file(p, suffix, wanted, key) for p in paths)


def _read_file(path: str, suffix: str, wanted: Sequence[str], key: str) -> Iterator[Record]:
    try:
        if suffix == ".jsonl":
            yield from read_jsonl(path)
        elif suffix == ".tar":
            yield from read_tar(path)
        elif suffix == ".parquet":
            yield from read_parquet(path, wanted=wanted)
        else:
            yield from read_csv(path, wanted=wanted, delimiter="\t" if suffix == ".tsv" else ",")
    except OSError as e:
        raise UserError(f"{key}: {path!r} cannot be read ({e.strerror}).") from e


def expand_braces(spec: str, key: str) -> list[str]:
    """`a-{00..02}.tar` -> three paths in order; also `{a,b}`, and several braces (a product)."""
    parts = _BRACES.split(spec)
    if any(c in part for part in parts[::2] for c in "{}"):
        raise UserError(f"{key}: {spec!r} has braces that do not pair; write a-{{000..003}}.tar.")
    choices = [_choices(part, spec, key) for part in parts[1::2]]
    if math.prod(len(c) for c in choices) > _MAX_SHARDS:
        raise UserError(f"{key}: {spec!r} stands for more than {_MAX_SHARDS} files; write fewer.")
    return [
        "".join(itertools.chain(*itertools.zip_longest(parts[::2], chosen, fillvalue="")))
        for chosen in itertools.product(*choices)
    ]


def _choices(inside: str, spec: str, key: str) -> Sequence[str]:
    match = _RANGE.fullmatch(inside)
    if match is None:
        if "," in inside:
            return inside.split(",")
        raise UserError(f"{key}: {spec!r}: braces hold a range or a list; write {{000..003}}.")
    first, last = match.groups()
    if int(last) < int(first) or int(last) - int(first) >= _MAX_SHARDS:
        raise UserError(
            f"{key}: {spec!r}: the range {{{inside}}} is empty or above {_MAX_SHARDS} files; "
            "write {000..003}."
        )
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    return [str(i).zfill(width) for i in range(int(first), int(last) + 1)]


def _check_images(records: Sequence[Record], spec: str) -> None:
    """Raises one UserError for all the images that are missing, empty or not files."""
    problems: list[str] = []
    checked: set[object] = set()
    for record in track(records, f"looking for the images of {spec}", len(records), "images"):
        source = record.image.source
        if record.identity in checked:
            continue
        checked.add(record.identity)
        try:
            if isinstance(source, str):
                check_encoded(source, record.image.name)
            elif record.image.nbytes == 0:
                check_encoded(b"", record.image.name)
        except ImageError as e:
            problems.append(str(e))
    if len(problems) == 1:
        raise ImageError(problems[0])
    if problems:
        rest = "; ".join(p.split(";")[0] for p in problems[1:3])
        raise ImageError(
            f"{problems[0].rstrip('.')}; {len(problems)} images of {len(checked)} cannot be used, "
            f"next: {rest}."
        )
