"""Rows of one block as columns: what is appended row by row becomes one record batch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_jax.data.table import schema
from ape_jax.data.table.image_cells import Image

if TYPE_CHECKING:
    import pyarrow as pa


class Block:
    """Collects rows that can be used, and problems with those that cannot.

    Args:
      file: number of the file that they are of.

    Attributes:
      content: bytes of encoded images among the rows.
    """

    def __init__(self, file: int):
        self._file = file
        self.at: list[str] = []
        self._paths: list[bytes | None] = []
        self._others: dict[int, Image] = {}  # By row: whatever is no whole file.
        self._ids: list[str | None] = []
        self._texts: list[str] = []
        self._ends: list[int] = []
        self._negatives: dict[int, list[str]] = {}  # By row, of those that have some.
        self._languages: dict[int, list[str]] = {}  # Likewise.
        self._domains: dict[int, str] = {}  # Likewise.
        self.problems: list[tuple[str, str, str]] = []
        self.content = 0

    def add(
        self,
        at: str,
        image: bytes | Image,
        key: str | None,
        captions: list[str],
        negatives: list[str],
        languages: list[str],
        domain: str | None,
    ) -> None:
        """Adds a row; an image that is a whole file is its path."""
        if domain is not None:
            self._domains[len(self.at)] = domain
        if languages:
            self._languages[len(self.at)] = languages
        if negatives:
            self._negatives[len(self.at)] = negatives
        if isinstance(image, bytes):
            self._paths.append(image)
        else:
            self._others[len(self.at)] = image
            self._paths.append(image.path)
            self.content += 0 if image.content is None else image.size
        self.at.append(at)
        self._ids.append(key)
        self._texts += captions
        self._ends.append(len(self._texts))

    def problem(self, at: str, kind: str, reason: str) -> None:
        """Adds a problem."""
        self.problems.append((at, kind, reason))

    def batch(self) -> pa.RecordBatch:
        """The rows, a batch of `schema.rows`."""
        import pyarrow as pa

        count = len(self.at)
        columns: dict[str, Any] = {
            "file": np.full(count, self._file, np.int32),
            "at": self.at,
            "path": self._paths,
            "id": self._ids,
            "negatives": [self._negatives.get(row) for row in range(count)],
            "languages": [self._languages.get(row) for row in range(count)],
            "domain": [self._domains.get(row) for row in range(count)],
            **self._images(),
        }
        types = {field.name: field.type for field in schema.rows()}
        arrays = [pa.array(columns[n], kind) for n, kind in types.items() if n in columns]
        ends = pa.array(np.concatenate([[0], self._ends]).astype(np.int32))
        captions = pa.ListArray.from_arrays(ends, pa.array(self._texts, pa.string()))
        return pa.RecordBatch.from_arrays([*arrays, captions], schema=schema.rows())

    def _images(self) -> dict[str, Any]:
        """What is known of images beside their paths; nearly always nothing."""
        count = len(self.at)
        found: dict[str, Any] = {
            "offset": np.full(count, -1),
            "size": np.full(count, -1),
            "number": np.full(count, -1),
            "content": [None] * count,
            "name": [None] * count,
        }
        for row, image in self._others.items():
            for name in found:
                found[name][row] = getattr(image, name)
        new = hashlib.blake2b
        keys = [
            new(path or b"", digest_size=16).digest() if row not in self._others else b""
            for row, path in enumerate(self._paths)
        ]
        for row, image in self._others.items():
            keys[row] = image.key
        return {**found, "key": keys}

    def problem_batch(self) -> pa.RecordBatch:
        """The problems, a batch of `schema.problems`."""
        import pyarrow as pa

        at, kind, reason = map(list, zip(*self.problems, strict=True))
        arrays = [
            pa.array(np.full(len(at), self._file, np.int32)),
            *map(pa.array, (at, kind, reason)),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema.problems())
