"""Opens what a config names (`pairs.jsonl`, `a-{000..003}.tar`, `tfds:...`): pairs or records."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence

from ape_jax.data import split
from ape_jax.data.formats import registry
from ape_jax.data.formats.format import Reader
from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.records import Record, record_captions, record_id
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageError, check_encoded
from ape_jax.terminal.progress import track

_MAX_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def open_pairs(spec: str | os.PathLike, *, key: str = "data.pairs") -> Pairs:
    """Opens pairs of any format and checks every record, before anything is decoded.

    Records with the same id are one pair with several captions (in order, exact duplicates
    dropped, surrounding white space removed). The default id is the image's path as seen from the
    pairs file, or the shard and member, or the split's index.

    Example:
      pairs = open_pairs("pairs.jsonl")
      pairs[0].captions, pairs[0].image.name

    Args:
      spec: `*.jsonl`, `*.csv`, `*.tsv`, `*.parquet`, `*.tar`, a brace pattern of one of these,
        `tfds:NAME[/CONFIG]:SPLIT`, `demo:NAME[/LANGUAGE]:SPLIT`, `features:FILES`, `part:...`
        (`data.split`), or of a format that a plug-in has registered.
      key: the config key to name in messages.

    Returns:
      The pairs; `VectorPairs` for `features:`.

    Raises:
      UserError: whatever a spec or a record can have wrong; names the file and line.
    """
    written = _checked(spec, key)
    if written.startswith(split.PREFIX):
        part = split.parse(written, key)
        return split.take(part, open_pairs(part.spec, key=key), key)
    found = registry.find(written, key=key)
    if found.open is not None:
        return found.open(os.fspath(spec), key)
    records = read_records(spec, wanted=("captions", "caption"), key=key)
    return Pairs(_merge(records), os.fspath(spec))


def read_records(spec: str | os.PathLike, *, wanted: Sequence[str], key: str) -> list[Record]:
    """Reads every record of a spec; images must be there and not empty, and are not decoded.

    Args:
      spec: as for `open_pairs`, without `features:`.
      wanted: the fields of which one is needed: `("caption", "captions")` or `("label",)`.
      key: the config key to name in messages.

    Raises:
      UserError: an unknown form, a missing or damaged file, no records, missing images.
    """
    spec = _checked(spec, key)
    records = list(track(_records(spec, wanted, key), f"reading {spec}", None, "records"))
    if not records:
        raise UserError(f"{key}: {spec!r} holds no records; write at least one")
    _check_images(records, spec)
    return records


def _checked(spec: str | os.PathLike, key: str) -> str:
    if not isinstance(spec, str | os.PathLike) or not os.fspath(spec):
        raise UserError(f"{key}: found {spec!r}; write {registry.supported()}")
    return os.fspath(spec)


def _records(spec: str, wanted: Sequence[str], key: str) -> Iterator[Record]:
    found = registry.find(spec, key=key)
    read = found.read
    if read is None:
        raise UserError(f"{key}: {spec!r} holds no records; write {registry.supported()}")
    if found.prefix:
        return read(spec, wanted, key)
    paths = expand_braces(spec, key)
    missing = [p for p in paths if not os.path.isfile(p)]
    if missing:
        others = f" ({len(missing)} of {len(paths)} files are missing)" if len(paths) > 1 else ""
        raise UserError(f"{key}: there is no file {missing[0]!r}{others}; correct the path")
    return itertools.chain.from_iterable(_read_file(read, p, wanted, key) for p in paths)


def _read_file(read: Reader, path: str, wanted: Sequence[str], key: str) -> Iterator[Record]:
    try:
        yield from read(path, wanted, key)
    except OSError as e:
        raise UserError(f"{key}: {path!r} cannot be read ({e.strerror})") from e


def _merge(records: Sequence[Record]) -> Iterator[Pair]:
    """One pair an id, in order of first appearance."""
    merged: dict[str, tuple[Record, dict[str, None]]] = {}
    default_ids: dict[object, str] = {}
    for record in records:
        captions = record_captions(record.fields, record.where)
        explicit = record_id(record.fields, record.where)
        # Without an id the image itself decides: equal bytes in a Parquet file are one image.
        name = explicit or default_ids.setdefault(record.identity, record.name)
        first, known = merged.setdefault(name, (record, {}))
        if first.identity != record.identity:
            raise UserError(
                f"{record.where}: the id {name!r} is also that of another image at {first.where}; "
                "give each image its own id"
            )
        known.update(dict.fromkeys(captions))
    for name, (record, captions) in merged.items():
        yield Pair(record.image, tuple(captions), name)


def expand_braces(spec: str, key: str) -> list[str]:
    """Expands braces: `a-{00..02}.tar` becomes three paths; `{a,b}` and products work, too."""
    parts = _BRACES.split(spec)
    if any(c in part for part in parts[::2] for c in "{}"):
        raise UserError(f"{key}: {spec!r} has braces that do not pair; write a-{{000..003}}.tar")
    choices = [_choices(part, spec, key) for part in parts[1::2]]
    if math.prod(len(c) for c in choices) > _MAX_SHARDS:
        raise UserError(f"{key}: {spec!r} stands for more than {_MAX_SHARDS} files; write fewer")
    return [
        "".join(itertools.chain(*itertools.zip_longest(parts[::2], chosen, fillvalue="")))
        for chosen in itertools.product(*choices)
    ]


def _choices(inside: str, spec: str, key: str) -> Sequence[str]:
    match = _RANGE.fullmatch(inside)
    if match is None:
        if "," in inside:
            return inside.split(",")
        raise UserError(f"{key}: {spec!r}: braces hold a range or a list; write {{000..003}}")
    first, last = match.groups()
    if int(last) < int(first) or int(last) - int(first) >= _MAX_SHARDS:
        raise UserError(
            f"{key}: {spec!r}: the range {{{inside}}} is empty or above {_MAX_SHARDS} files; "
            "write {000..003}"
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
            f"{problems[0]}; {len(problems)} images of {len(checked)} cannot be used, next: {rest}"
        )
