"""Rows that cannot be used: stops at them, or leaves them out and counts them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ape_jax.data.options import Reading
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageError, ImageRef

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 3


class Problem(NamedTuple):
    """A row that cannot be used: where it is, the kind it is counted as, and the reason."""

    where: str
    kind: str
    reason: str

    @classmethod
    def of_image(cls, image: ImageRef, error: ImageError) -> Problem:
        """What an error says of an image."""
        return cls(image.name, error.kind, str(error).removeprefix(f"{image.name}: "))

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problems:
    """The rows of a source that cannot be used.

    Attributes:
      batches: of `schema.problems`.
      files: of the source.
      images: images that are missing or empty, or that were decoded and cannot be.
      rows: how many rows the source has, those that cannot be used included.
      pairs: how many images it has, those that cannot be used included.
    """

    batches: Sequence[pa.RecordBatch] = ()
    files: Sequence[str] = ()
    images: Sequence[Problem] = ()
    rows: int = 0
    pairs: int = 0

    def __len__(self) -> int:
        return self._broken + len(self.images)

    def __iter__(self) -> Iterator[Problem]:
        for batch in self.batches:
            for row in batch.to_pylist():
                where = f"{self.files[row['file']]}:{row['at']}"
                yield Problem(where, row["kind"], row["reason"])
        yield from self.images

    def counts(self) -> dict[str, int]:
        """The number of each kind, the most frequent first."""
        import pyarrow.compute as pc

        found: collections.Counter[str] = collections.Counter()
        for batch in self.batches:
            entries = pc.call_function("value_counts", [batch.column("kind")]).to_pylist()
            found.update({entry["values"]: entry["counts"] for entry in entries})
        found.update(problem.kind for problem in self.images)
        return dict(found.most_common())

    def first(self, most: int = 1) -> list[Problem]:
        """The first so many of each kind, in their order."""
        left = {kind: min(most, count) for kind, count in self.counts().items()}
        found: list[Problem] = []
        for problem in self if left else ():
            if left.get(problem.kind):
                found.append(problem)
                left[problem.kind] -= 1
                if not any(left.values()):
                    break
        return found

    def with_images(self, more: Iterable[Problem]) -> Problems:
        """These problems and further images that cannot be used."""
        return dataclasses.replace(self, images=(*self.images, *more))

    def room(self, reading: Reading) -> float:
        """How many further images may be left out; below 0 where too much is left out already."""
        if reading.on_error == "error":
            return -float(len(self) > 0)
        left = reading.max_skipped - self._broken / max(self.rows, 1)
        return left * max(self.pairs, 1) - len(self.images)

    def check(self, reading: Reading, key: str, spec: str) -> None:
        """Stops where rows cannot be used and that is an error, or they are too many.

        Shares of rows and of images that cannot be used are added up.

        Raises:
          UserError: naming the first of each kind, and how many there are.
        """
        if self.room(reading) >= 0:
            return
        error = ImageError if len(self) == len(self.images) else UserError
        if reading.on_error == "error" and len(self) == 1:
            raise error(str(next(iter(self))))
        listed = "; ".join(map(str, self._shown()))
        if reading.on_error == "error":
            raise error(
                f"{listed}; {self._counted()} cannot be used (data.on_error='skip' leaves them out)"
            )
        raise error(
            f"{key}: {self._counted()} of {spec!r} cannot be used, more than the share of "
            f"data.max_skipped={reading.max_skipped:g}: {listed}"
        )

    def _shown(self) -> list[Problem]:
        """The first of each kind, or the first few of a single kind."""
        first = self.first()
        return first if len(first) > 1 else self.first(_SHOWN)

    @property
    def _broken(self) -> int:
        return sum(batch.num_rows for batch in self.batches)

    def _counted(self, always: bool = False) -> str:
        """How many of how many, with their kinds where there are several, or always."""
        rows = f"{self._broken:,} of {self.rows:,} rows"
        images = f"{len(self.images):,} of {self.pairs:,} images"
        parts = [rows] * (self._broken > 0) + [images] * (len(self.images) > 0)
        kinds = [f"{kind} {count:,}" for kind, count in self.counts().items()]
        listed = f" ({', '.join(kinds)})" if always or len(kinds) > 1 else ""
        return " and ".join(parts) + listed

    def __str__(self) -> str:
        """A line for the user."""
        return f"left out {self._counted(always=True)}"
