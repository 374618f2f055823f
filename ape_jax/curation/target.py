"""What a selection is to serve: names, unlabelled images, or pairs."""

from __future__ import annotations

import dataclasses
import os
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32, Int64

from ape_jax.curation.towers import Towers, of_texts
from ape_jax.curation.vectors import Vectors, unit
from ape_jax.data.cells import printable
from ape_jax.data.formats import registry
from ape_jax.data.options import Reading
from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.places import sources
from ape_jax.data.specs import open_pairs
from ape_jax.data.vectors import VectorPairs
from ape_jax.errors import UserError
from ape_jax.evaluators.prompts import read_classnames
from ape_jax.images import folders
from ape_jax.images.decode import ImageRef

Kind = Literal["names", "images", "pairs"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be served.

    Attributes:
      kind: what of it counts: the texts of names, images, or both of pairs.
      spec: as the user wrote it.
      pairs: one a target; names have no image, and images no caption.
    """

    kind: Kind
    spec: str
    pairs: Pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def labels(self, rows: Int64[np.ndarray, " k"]) -> list[str]:
        """What people call these targets: a name, a caption or the name of a file."""
        found = (self.pairs[int(row)] for row in rows)
        if self.kind == "images":
            return [printable(os.path.basename(pair.image.name)) for pair in found]
        return [pair.captions[0] for pair in found]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Queries:
    """Unit vectors of targets, without the means of the pool; None where a side does not count.

    Attributes:
      image: f32 [t, k].
      text: f32 [t, d].
    """

    image: Float32[np.ndarray, "t k"] | None
    text: Float32[np.ndarray, "t d"] | None

    def __len__(self) -> int:
        found = self.image if self.image is not None else self.text
        return 0 if found is None else len(found)

    def cosines(
        self,
        targets: slice,
        image: Float32[np.ndarray, "b k"] | None,
        text: Float32[np.ndarray, "b d"] | None,
    ) -> Float32[np.ndarray, "t b"]:
        """Cosines of some targets with pairs, the mean over the sides that count."""
        sides = [(self.image, image), (self.text, text)]
        found = [own[targets] @ x.T for own, x in sides if own is not None and x is not None]
        return sum(found[1:], found[0]) / np.float32(len(found))


def open_target(spec: str, kind: str, reading: Reading, *, key: str = "--target") -> Target:
    """Opens a target; nothing is decoded.

    Args:
      spec: a text file of names, one a line; a folder of images; or pairs.
      kind: one of `KINDS`, or "auto": a `.txt` file holds names, a folder without pairs images,
        anything else is pairs.
      reading: what happens to rows of pairs that cannot be used.
      key: the flag to name in messages.

    Raises:
      UserError: where there is no such thing, or nothing in it.
    """
    if not spec.strip():
        raise UserError(
            f"{key}: expected a text file of names, a folder of images or a pairs file, found none"
        )
    path = os.path.expanduser(spec)
    found = kind if kind != "auto" else _guess(path)
    if found == "names":
        return Target(kind="names", spec=spec, pairs=of_texts(read_classnames(path, key=key), spec))
    if found == "images" and os.path.isdir(path):
        below = folders.images_below(os.path.abspath(path))
        if not below.paths:
            raise UserError(
                f"{key}: {printable(spec)} holds no image{below.said()}; name a folder with images"
            )
        refs = (ImageRef(x, printable(x)) for x in below.paths)
        images = Pairs.of((Pair(ref, ("",), ref.name) for ref in refs), spec)
        return Target(kind="images", spec=spec, pairs=images)
    written = spec if registry.is_named(spec) else sources.absolute(path)
    pairs = open_pairs(written, key=key, reading=reading)
    if isinstance(pairs, VectorPairs):
        raise UserError(f"{key}: {spec!r} holds vectors and no images; name images or captions")
    return Target(kind="images" if found == "images" else "pairs", spec=spec, pairs=pairs)


def encode(target: Target, towers: Towers, pool: Vectors) -> tuple[Target, Queries]:
    """Encodes a target by the pool's towers.

    Args:
      target: what is to be served.
      towers: those that the pool was encoded by.
      pool: for the means that are subtracted.

    Returns:
      The target without images that cannot be read, and its vectors.
    """
    images, texts = target.kind != "names", target.kind != "images"
    dataset = towers.encode(target.pairs, "target", images=images, texts=texts)
    image = text = None
    if images:
        assert dataset.pooled is not None
        image = unit(dataset.pooled[:].astype(np.float32).mean(axis=1) - pool.image_mean)
    if texts:
        assert dataset.tokens is not None
        each = unit(dataset.tokens.pool(towers.pooling) - pool.text_mean)
        captions = dataset.captions
        every = each[captions.text_index]
        text = unit(np.add.reduceat(every, captions.offsets[:-1], axis=0))
    assert isinstance(dataset.pairs, Pairs)
    return dataclasses.replace(target, pairs=dataset.pairs), Queries(image=image, text=text)


def _guess(path: str) -> Kind:
    if path.lower().endswith(".txt") and registry.looked_at(path) is None:
        return "names"
    is_folder = "\0" not in path and os.path.isdir(path)
    return "images" if is_folder and registry.looked_at(path) is None else "pairs"
