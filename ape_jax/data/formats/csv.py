"""CSV and TSV: a header with `image` and `caption` (or `captions`, `label`), a row a record."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ape_jax.data.formats.columns import check_columns
from ape_jax.data.formats.format import PairsFormat
from ape_jax.data.records import MAX_RECORD_BYTES, Record, file_record
from ape_jax.errors import UserError


def read_csv(path: str, wanted: Sequence[str], key: str) -> Iterator[Record]:
    """Reads a file with a header, UTF-8 with or without a byte order mark.

    Cells are separated by commas, in a `.tsv` file by tabs; quoted cells may hold separators and
    line ends.

    Args:
      path: the file; image paths in it are relative to its directory.
      wanted: beside `image`, one of these columns must be there.
      key: not used: messages name file and line.

    Raises:
      UserError: the file is not UTF-8, has no such columns, or a row of another length.
    """
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    csv.field_size_limit(MAX_RECORD_BYTES)
    with open(path, encoding="utf-8-sig", newline="") as f:
        rows = _rows(path, csv.reader(f, delimiter=delimiter, strict=True))
        line, header = next(rows, (1, []))
        header = [name.strip() for name in header]
        _check_separator(header, f"{path}:{line}")
        check_columns(header, wanted, f"{path}:{line}")
        for line, row in rows:
            where = f"{path}:{line}"
            if len(row) != len(header):
                raise UserError(
                    f"{where}: found {len(row)} cells where the header has {len(header)}; "
                    "quote cells that hold the separator"
                )
            fields = {k: v for k, v in zip(header, row, strict=True) if k in (*wanted, "id")}
            image = row[header.index("image")]
            yield file_record(image, fields, where=where, base=os.path.dirname(path))


def _check_separator(header: Sequence[str], where: str) -> None:
    """Raises UserError for a header that another separator divides, as some spreadsheets write."""
    if len(header) == 1 and any(separator in header[0] for separator in ";,\t|"):
        raise UserError(
            f"{where}: the header {header[0]!r} is one cell; separate cells by commas, or by tabs "
            "in a .tsv file"
        )


def _rows(path: str, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line."""
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
