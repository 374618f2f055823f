"""CSV and TSV: a header with `image` and `caption` (or `captions`, `label`), a row a record."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Any

from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.rows import MAX_RECORD_BYTES, Ask, Broken, FileRows, Row
from ape_jax.errors import UserError


def read_csv(path: str, ask: Ask) -> FileRows:
    """Reads a file with a header, UTF-8 with or without a byte order mark.

    Cells are separated by commas, in a `.tsv` file by tabs; quoted cells may hold separators and
    line ends. Rows of another length than the header are broken.

    Raises:
      UserError: the file is not UTF-8, or its header has another separator.
    """
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    csv.field_size_limit(MAX_RECORD_BYTES)
    rows = _rows(path, delimiter)
    line, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    _check_separator(header, f"{path}:{line}")
    return FileRows(rows=_records(rows, header), columns=header, header=str(line))


def _records(rows: Iterator[tuple[int, list[str]]], header: list[str]) -> Iterator[Row | Broken]:
    for line, row in rows:
        if len(row) == len(header):
            yield Row(str(line), dict(zip(header, row, strict=True)))
            continue
        reason = (
            f"found {len(row)} cells where the header has {len(header)}; quote cells that hold the "
            "separator"
        )
        yield Broken(str(line), "damaged row", reason)


def _check_separator(header: Sequence[str], where: str) -> None:
    """Raises UserError for a header that another separator divides, as some spreadsheets write."""
    if len(header) == 1 and any(separator in header[0] for separator in ";,\t|"):
        raise UserError(
            f"{where}: the header {header[0]!r} is one cell; separate cells by commas, or by tabs "
            "in a .tsv file"
        )


def _rows(path: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line."""
    with open(path, encoding="utf-8-sig", newline="") as f:
        reader: Any = csv.reader(f, delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as e:
                raise UserError(f"{path}:{line}: {e}; correct the quotes or the cell") from e
            except UnicodeDecodeError as e:
                # The decoder reads ahead: the byte is somewhere after this line.
                raise UserError(
                    f"{path}:{line}: the file is not UTF-8 text from about this line on "
                    f"({e.reason}); save it as UTF-8"
                ) from e
            if row:
                yield line, row


CSV = PairsFormat(name="csv", spec="*.csv, *.tsv", suffixes=(".csv", ".tsv"), read=read_csv)
