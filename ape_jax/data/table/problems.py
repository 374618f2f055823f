"""Rows that cannot be used: stops at them, or leaves them out and counts them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ape_jax.data.options import Reading
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageError

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 3


class Problem(NamedTuple):
    """A row that cannot be used: where it is, the kind it is counted as, and the reason."""

    where: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problems:
    """The rows of a source that cannot be used.

    Attributes:
      batches: of `schema.problems`.
      files: of the source.
      images: images that are missing or empty.
      rows: how many rows the source has, those that cannot be used included.
    """

    batches: Sequence[pa.RecordBatch] = ()
    files: Sequence[str] = ()
    images: Sequence[Problem] = ()
    rows: int = 0

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self.batches) + len(self.images)

    def __iter__(self) -> Iterator[Problem]:
        for batch in self.batches:
            for row in batch.to_pylist():
                where = f"{self.files[row['file']]}:{row['at']}"
                yield Problem(where, row["kind"], row["reason"])
        yield from self.images

    def counts(self) -> dict[str, int]:
        """The number of each kind."""
        found: dict[str, int] = {}
        for problem in self:
            found[problem.kind] = found.get(problem.kind, 0) + 1
        return found

    def first(self) -> list[Problem]:
        """The first of each kind."""
        found: dict[str, Problem] = {}
        for problem in self:
            found.setdefault(problem.kind, problem)
        return list(found.values())

    def check(self, reading: Reading, key: str, spec: str) -> None:
        """Stops where rows cannot be used and that is an error, or they are too many.

        Raises:
          UserError: naming the first of each kind, and how many there are.
        """
        if not len(self):
            return
        share = len(self) / max(self.rows, 1)
        if reading.on_error == "skip" and share <= reading.max_skipped:
            return
        error = ImageError if len(self) == len(self.images) else UserError
        if reading.on_error == "error" and len(self) == 1:
            raise error(str(next(iter(self))))
        listed = "; ".join(str(problem) for problem in self._shown())
        if reading.on_error == "error":
            raise error(
                f"{listed}; {self._what()} of {self.rows:,} cannot be used "
                "(data.on_error='skip' leaves them out)"
            )
        raise error(
            f"{key}: {len(self):,} of {self.rows:,} rows of {spec!r} cannot be used, more than "
            f"data.max_skipped={reading.max_skipped:g} of them: {listed}"
        )

    def _shown(self) -> list[Problem]:
        """The first of each kind, or the first few of a single kind."""
        first = self.first()
        if len(first) > 1:
            return first
        return [problem for problem, _ in zip(self, range(_SHOWN))]

    def _what(self) -> str:
        kinds = self.counts()
        if len(self) == len(self.images):
            return f"{len(self):,} images"
        return f"{len(self):,} rows ({', '.join(f'{n:,} {kind}' for kind, n in kinds.items())})"

    def __str__(self) -> str:
        """A line for the user."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.counts().items())
        return f"left out {len(self):,} of {self.rows:,} rows ({kinds})"
