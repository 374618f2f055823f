"""Hugging Face's data sets by name: `hf:ORGANISATION/NAME[/CONFIG][:SPLIT]`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ape_jax.data import columns
from ape_jax.data.cells import shorten
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.formats.tables import arrow_cells, arrow_checks
from ape_jax.data.formats.tables.arrow import file_rows
from ape_jax.data.formats.tables.arrow_checks import readable
from ape_jax.data.rows import Ask, Broken, FileRows, Row
from ape_jax.errors import UserError, install

_SPEC = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(/(?P<config>[\w.-]+))?(:(?P<split>.+))?")
_WRITE = "write hf:ORGANISATION/NAME[/CONFIG][:SPLIT]"


def read_hub(spec: str, ask: Ask) -> FileRows:
    """Reads a data set through the package `datasets`, which keeps it in its own cache.

    Images stay encoded, in the Arrow files of that cache.

    Args:
      spec: `hf:ORGANISATION/NAME[/CONFIG][:SPLIT]`; the split may be a slice such as
        `train[:10%]`, and without one all splits are read.
      ask: what is asked.

    Raises:
      UserError: `datasets` is not installed; there is no such data set, config or split; it cannot
        be reached.
    """
    match = _SPEC.fullmatch(spec.removeprefix("hf:"))
    if match is None:
        raise UserError(f"{ask.key}: {spec!r} names no data set; {_WRITE}")
    splits = _load(match["name"], match["config"], match["split"], spec, ask.key)
    if len(splits) > 1:
        names = shorten(list(splits))
        ask.say(f"{spec}: the splits {names} are all read; write {spec}:NAME for one")
    if not splits:
        return FileRows(rows=())
    named = list(next(iter(splits.values())).column_names)
    return FileRows(rows=_rows(spec, splits, ask), columns=named)


def _load(
    name: str, config: str | None, split: str | None, spec: str, key: str
) -> Mapping[str, Any]:
    """The data sets of the splits by name; one that was named is ""."""
    try:
        import datasets
    except ImportError as e:
        raise UserError(
            f"{key}: {spec!r} needs Hugging Face's datasets; {install('datasets')}"
        ) from e
    try:
        found = datasets.load_dataset(name, config, split=split)
    except Exception as e:
        # It raises errors of many packages: of the network, of the hub, of the files' readers.
        reason = " ".join(str(e).split())[:200] or type(e).__name__
        raise UserError(
            f"{key}: {spec!r} cannot be loaded ({reason}); correct the name, config or split, or "
            "load it once where there is a network"
        ) from e
    if isinstance(found, Mapping):
        return {str(name): part for name, part in found.items()}
    return {"": found}


def _rows(spec: str, splits: Mapping[str, Any], ask: Ask) -> Iterator[Row | Broken]:
    for split, found in splits.items():
        at = f"{split} row " if split else "row "
        suffix = f":{split}/" if split else ":"
        files = _whole_files(found)
        if files:
            yield from file_rows(files, ask, at=at, suffix=suffix)
        else:
            yield from _chosen_rows(spec, found, ask, at, suffix)


def _whole_files(found: Any) -> list[str]:
    """The Arrow files that hold exactly the rows of a data set; none where rows are chosen."""
    import pyarrow as pa

    files = [file["filename"] for file in found.cache_files]
    if getattr(found, "_indices", None) is not None or not files:
        return []
    count = 0
    for file in files:
        with readable(file, "Arrow"), pa.memory_map(file) as source:
            count += sum(batch.num_rows for batch in pa.ipc.open_stream(source))
    return files if count == len(found) else []


def _chosen_rows(spec: str, found: Any, ask: Ask, at: str, suffix: str) -> Iterator[Row | Broken]:
    """Rows of a data set that is a slice of its files, or in memory."""
    schema = found.features.arrow_schema
    chosen = columns.choose(list(schema.names), ask.columns, ask.wanted == "label", spec)
    arrow_cells.check_image(schema.field(chosen.image).type, chosen.image, spec)
    read = chosen.read
    extra = arrow_cells.class_names(schema, chosen.captions[0]) if ask.wanted == "label" else {}
    tables = found.select_columns(read).with_format("arrow")
    first, size = 0, arrow_checks.BATCH_ROWS // 16
    while first < len(found):
        with readable(spec, "Arrow", f"{at}{first}"):
            batches = tables[first : first + size].to_batches()
        for batch in batches:
            yield from arrow_cells.batch_rows(
                batch, spec, image=chosen.image, at=at, suffix=suffix, first=first, extra=extra
            )
            first += batch.num_rows


HUB = PairsFormat(name="hf", spec="hf:NAME[/CONFIG][:SPLIT]", prefix="hf:", read=read_hub)
