"""Embeds the images of an index, block by block: in this process, or by actors on a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from ape_jax.data.image_loader import Skipped, WithImage
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pairs
from ape_jax.data.specs import open_pairs
from ape_jax.data.table.problems import Problem
from ape_jax.images.decode import ImageRef
from ape_jax.parallel.actors import Pool, RayCluster, open_pool
from ape_jax.search.items import Item, Source

Report = Callable[[int], None]

Image: TypeAlias = ImageRef | int
"""What an actor finds an image by: a reference to its file, or its row in the source."""


@runtime_checkable
class ImageEncoder(Protocol):
    """Encoder of images, such as the result of `ape_jax.load`."""

    def encode_readable(
        self, items: Sequence[WithImage], skipped: Skipped, done: Callable[[int], None]
    ) -> tuple[Float[np.ndarray, "n e"], Bool[np.ndarray, " n"]]:
        """Embeds the readable images, and marks which of the items they are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """Embeddings of some consecutive images.

    Attributes:
      vectors: of those that can be read, f32 [m, e].
      readable: mask of those, bool [n].
      skipped: what is wrong with each of the others, by index.
    """

    vectors: Float[np.ndarray, "m e"]
    readable: Bool[np.ndarray, " n"]
    skipped: Mapping[int, Problem]


@runtime_checkable
class Engine(Protocol):
    """Embeds blocks of images, which do not depend on each other."""

    def encode(
        self, blocks: Sequence[Sequence[Item]], take: Callable[[int, Block], None], report: Report
    ) -> None:
        """Embeds images.

        Args:
          blocks: the images.
          take: is given the number of each block, in order, and its embeddings.
          report: is told how many more images are done; fewer, where a block is begun again.
        """
        ...


@dataclasses.dataclass(frozen=True)
class ThisProcess:
    """Embeds here, one block after the other."""

    encoder: ImageEncoder

    def encode(
        self, blocks: Sequence[Sequence[Item]], take: Callable[[int, Block], None], report: Report
    ) -> None:
        """Embeds images; see `Engine`."""
        for number, block in enumerate(blocks):
            take(number, _encoded(self.encoder, block, report))


@dataclasses.dataclass(frozen=True)
class OnRay:
    """Embeds by the actors of a pool; the vectors of a block come back through Ray."""

    pool: Pool
    source: Source

    def encode(
        self, blocks: Sequence[Sequence[Item]], take: Callable[[int, Block], None], report: Report
    ) -> None:
        """Embeds images; see `Engine`.

        Raises:
          UserError: where the model cannot be restored in an actor.
        """
        waiting: dict[int, Block] = {}
        following = 0

        def take_in_order(number: int, block: Block) -> None:
            nonlocal following
            waiting[number] = block
            while following in waiting:
                take(following, waiting.pop(following))
                following += 1

        tasks = [([self._found_by(item) for item in block],) for block in blocks]
        # So many blocks are in memory while an early one is done again.
        ahead = 4 * self.pool.size
        self.pool.run("encode", tasks, take_in_order, report, ahead)

    def _found_by(self, item: Item) -> Image:
        """The reference where it is a path; contents are not sent, but read where they are."""
        return item.image if isinstance(item.image.source, str) else self._rows[item.name]

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {item.name: row for row, item in enumerate(self.source.items)}


@contextlib.contextmanager
def on_ray(
    cluster: RayCluster,
    source: Source,
    reading: Reading | None,
    load: Callable[..., ImageEncoder],
    *arguments: Any,
) -> Iterator[OnRay]:
    """Opens an engine of actors, and ends them afterwards.

    Args:
      cluster: which, and how many actors.
      source: all images of a folder or of pairs, as `open_images` gives them.
      reading: how pairs were opened.
      load: a function of a module that makes the encoder in an actor.
      *arguments: for `load`.

    Raises:
      UserError: where Ray is not installed, or there is no such cluster or no room in it.
    """
    with open_pool(cluster, Worker, source.spec, reading, load, arguments) as pool:
        yield OnRay(pool, source)


@dataclasses.dataclass(frozen=True)
class _Record:
    image: ImageRef


class Worker:
    """An encoder in an actor; its method is called by `Pool`.

    Args:
      spec: the source, opened where an image is not a file of its own.
      reading: how.
      load: makes the encoder.
      arguments: for `load`.
    """

    def __init__(
        self,
        spec: str,
        reading: Reading | None,
        load: Callable[..., ImageEncoder],
        arguments: Sequence[Any],
    ):
        self._spec, self._reading, self._encoder = spec, reading, load(*arguments)

    def encode(self, images: Sequence[Image], *, report: Report) -> Block:
        """Embeds a block of images."""
        return _encoded(self._encoder, [_Record(self._reference(x)) for x in images], report)

    def _reference(self, image: Image) -> ImageRef:
        return image if isinstance(image, ImageRef) else self._pairs.image_ref(image)

    @functools.cached_property
    def _pairs(self) -> Pairs:
        return open_pairs(self._spec, key="--images", reading=self._reading)


def _encoded(encoder: ImageEncoder, items: Sequence[WithImage], report: Report) -> Block:
    skipped, before = Skipped(), 0

    def done(count: int) -> None:
        nonlocal before
        report(count - before)
        before = count

    z, readable = encoder.encode_readable(items, skipped, done)
    return Block(
        vectors=z[readable].astype("<f4"),
        readable=readable,
        skipped=dict(skipped.problems),
    )
