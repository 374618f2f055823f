"""What is on record of the shards of a cache: one file for each, and one for all in the end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ape_jax.features.files import array_records
from ape_jax.features.files.shards import Shard
from ape_jax.storage import sealed
from ape_jax.terminal.progress import track

LAYOUT = "rows"  # Of the files on record; the version before names none.
_CONVERTERS = 4  # Threads; hashing lets the others run.


class Records:
    """The records of a cache's shards.

    Args:
      path: the cache's directory.
      digest: of the cache's fingerprint.
      sizes: items of each shard.
    """

    def __init__(self, path: Path, digest: str, sizes: Sequence[int]):
        self._path, self._digest, self._sizes = path, digest, sizes

    def file(self, k: int) -> Path:
        """The file of shard k."""
        return self._path / f"shard-{k:05d}.rows"

    def is_there(self) -> bool:
        """Tests whether there is the record of a finished cache, damaged or not."""
        return self._whole.exists()

    def are_whole(self, layout: str | None = LAYOUT) -> bool:
        """Tests whether all shards are on record, in files of this layout.

        Raises:
          UserError: the record is damaged.
        """
        try:
            return sealed.read(self._whole).get("layout") == layout
        except FileNotFoundError:
            return False

    def of_all(self) -> list[Shard]:
        """What is on record of a finished cache.

        Raises:
          UserError: it is damaged, or of another cache.
        """
        value = sealed.read(self._whole)
        found = [Shard.from_json(shard) for shard in value["shards"]]
        sizes = [shard.records for shard in found]
        if value["cache"] != self._digest or sizes != list(self._sizes):
            raise sealed.damaged(self._whole, "belongs to another cache")
        return found

    def of_finished(self, layout: str | None = LAYOUT) -> dict[int, Shard]:
        """What is on record of the finished shards of an unfinished cache.

        Raises:
          UserError: a record is damaged, or of another shard.
        """
        found: dict[int, Shard] = {}
        for k, size in enumerate(self._sizes):
            with contextlib.suppress(FileNotFoundError):
                value = sealed.read(self._single(k))
                shard = Shard.from_json(value["shard"])
                if (value["cache"], value["number"], shard.records) != (self._digest, k, size):
                    raise sealed.damaged(self._single(k), "belongs to another shard")
                if value.get("layout") == layout:
                    found[k] = shard
        return found

    def put(self, k: int, shard: Shard) -> None:
        """Puts a finished shard on record.

        Raises:
          OSError: the disk is full or the folder cannot be written.
        """
        value = {"cache": self._digest, "layout": LAYOUT, "number": k, "shard": shard.to_json()}
        sealed.write(self._single(k), value)

    def seal(self, found: Mapping[int, Shard]) -> None:
        """Puts the records of all shards into one file.

        Raises:
          OSError: the disk is full or the folder cannot be written.
        """
        values: list[Any] = [found[k].to_json() for k in range(len(self._sizes))]
        sealed.write(self._whole, {"cache": self._digest, "layout": LAYOUT, "shards": values})
        for pattern in ("shard-*.json", "shard-*.array_record", ".*.partial"):
            for left_over in self._path.glob(pattern):
                left_over.unlink()

    def of_the_version_before(self) -> dict[int, Shard]:
        """What is on record of ArrayRecord files, of a finished cache or an unfinished one.

        Raises:
          UserError: a record is damaged.
        """
        if self.are_whole(None):
            return dict(enumerate(self.of_all()))
        return self.of_finished(None)

    def convert(self, old: Mapping[int, Shard], *, ragged: bool) -> None:
        """Writes the rows of ArrayRecord files anew; killed, it goes on where it was.

        Args:
          old: what is on record of them.
          ragged: whether rows differ in length.

        Raises:
          UserError: any byte is not the one that was written.
          OSError: the disk is full or the folder cannot be written.
        """
        done = self.of_finished()
        todo = [k for k in old if k not in done]

        def convert(k: int) -> None:
            source, target = self._array_record(k), self.file(k)
            self.put(k, array_records.convert(source, old[k], target, ragged=ragged))
            source.unlink()

        with ThreadPoolExecutor(_CONVERTERS) as pool:
            for _ in track(pool.map(convert, todo), "converting features", len(todo), "shards"):
                pass
        for k in done:  # Its conversion was killed before the last step.
            self._array_record(k).unlink(missing_ok=True)
        if self.are_whole(None):
            self.seal(self.of_finished())

    @property
    def _whole(self) -> Path:
        return self._path / "shards.json"

    def _single(self, k: int) -> Path:
        return self._path / f"shard-{k:05d}.json"

    def _array_record(self, k: int) -> Path:
        return self._path / f"shard-{k:05d}.array_record"
