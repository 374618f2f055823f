"""What an extraction asks of the place where its shards are encoded, and the usual one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import jax

from ape_jax.features.cache import Cache
from ape_jax.features.fingerprint import Fingerprint
from ape_jax.features.jobs import Job


@runtime_checkable
class Work(Protocol):
    """All of a job but the encoding: `jobs` has them, and an engine may bring its own."""

    @property
    def what(self) -> str:
        """Name for progress lines."""
        ...

    @property
    def unit(self) -> str:
        """What is counted, "views" or "captions"."""
        ...

    @property
    def count(self) -> int:
        """Items."""
        ...

    @property
    def per_item(self) -> int:
        """Units an item."""
        ...

    @property
    def per_shard(self) -> int:
        """Items a shard."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the features."""
        ...

    def need(self, blocks: Sequence[range]) -> int:
        """Bytes of the features of all items of these blocks, at most."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Encodes shards and writes them into a cache; the shards do not depend on each other."""

    def share(self, shards: int) -> range:
        """The shards, of so many, that this process answers for."""
        ...

    def write(
        self, job: Work, cache: Cache, todo: Sequence[int], report: Callable[[int], None]
    ) -> None:
        """Writes these shards.

        Args:
          job: what is encoded.
          cache: its cache, which this process or the first of its cluster has begun.
          todo: numbers of shards, of this process's share.
          report: is told how many more units are encoded; fewer, where a shard is begun again.

        Raises:
          UserError: where an item cannot be encoded or a shard cannot be written.
        """
        ...


@dataclasses.dataclass(frozen=True)
class ThisProcess:
    """Encodes here; the processes of a cluster of JAX share the shards."""

    def share(self, shards: int) -> range:
        """Every shard, or every so many-th."""
        return range(jax.process_index(), shards, jax.process_count())

    def write(
        self, job: Job, cache: Cache, todo: Sequence[int], report: Callable[[int], None]
    ) -> None:
        """Writes one shard after the other; see `Engine`."""
        for k in todo:
            cache.write(k, job.encode(cache.blocks[k], report))
