"""Running frozen towers over all images or all captions, once."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from ape_jax.features import ragged
from ape_jax.parallel import hosts
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.parallel.progress import Progress, track
from ape_jax.towers.tower import Encoded, Tower


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenTower:
    """A frozen tower at work: what to read from it, and its parameters on the mesh.

    Attributes:
      tower: the encoder.
      params: its parameters as placed on `mesh`.
      mesh: the devices.
      layer: which hidden state is read.
      pooling: for images; captions keep their tokens.
      batch: rows a call, over all devices; rounded up to a multiple of their number.
    """

    tower: Tower
    params: PyTree
    mesh: Mesh
    layer: int = -1
    pooling: str = "none"
    batch: int = 64

    @property
    def rows(self) -> int:
        """Rows a call: `batch` rounded up to a multiple of the number of devices."""
        return mesh_lib.round_up(self.batch, self.mesh)

    @functools.cached_property
    def encode(self) -> Callable[[PyTree, Mapping[str, Array]], Encoded]:
        """The forward pass, jitted once for all data sets; its result is on every process."""

        def encode(params: PyTree, batch: Mapping[str, Array]) -> Encoded:
            out = self.tower.apply(params, batch, layer=self.layer, pooling=self.pooling)
            # Tokens of images are large and not wanted.
            return out if out.pooled is None else out.replace(tokens=None, mask=None)

        return jax.jit(encode, out_shardings=mesh_lib.replicated(self.mesh))


def encode_images(
    frozen: FrozenTower, batches: Iterable[Mapping[str, Any]], count: int, views: int, what: str
) -> tuple[Float[np.ndarray, "n V d"], Bool[np.ndarray, "n"]]:
    """Pooled features of every view of every image.

    Args:
      frozen: the tower.
      batches: of `data.pipeline.image_batches`, with `frozen.rows` rows each.
      count: n, the number of records.
      views: V, the number of views of each.
      what: for the progress line.

    Returns:
      f32 [n, V, d], and which records were encoded (a skipped image is not).
    """
    progress = Progress(what, count * views, "images")
    features, seen, done = None, np.zeros(count, bool), 0
    for batch in batches:
        image = mesh_lib.place_whole_batch({"image": batch["image"]}, frozen.mesh, frozen.rows)
        out = np.asarray(frozen.encode(frozen.params, image).pooled, np.float32)
        if features is None:
            features = np.zeros((count, views, out.shape[-1]), np.float32)
        valid = batch["valid"]
        index = batch["index"][valid]
        features[index, batch["view"][valid]] = out[valid]
        seen[index] = True
        done += int(valid.sum())
        progress.update(done)
    if features is None:
        features = np.zeros((count, views, 0), np.float32)
    return features, seen


def encode_texts(frozen: FrozenTower, texts: Sequence[str], what: str) -> ragged.RaggedTokens:
    """Token encodings of every text, without padding.

    Texts are tokenised together with others of like length, so that little padding is computed and
    one program a length (in steps of 8) is compiled.

    Args:
      frozen: the tower.
      texts: n captions.
      what: for the progress line.
    """
    progress = Progress(what, len(texts), "captions")
    lengths = measure(frozen.tower, texts, what)
    order = np.argsort(lengths, kind="stable").tolist()
    rows: list[Any] = [None] * len(texts)
    for start in range(0, len(order), frozen.rows):
        chosen = order[start : start + frozen.rows]
        batch = frozen.tower.prepare([texts[i] for i in chosen])
        placed = mesh_lib.place_whole_batch(batch, frozen.mesh, frozen.rows)
        out = frozen.encode(frozen.params, placed)
        encoded, masks = np.asarray(out.tokens, np.float32), np.asarray(out.mask)
        for i, tokens, mask in zip(chosen, encoded, masks):
            rows[i] = tokens[mask]
        progress.update(start + len(chosen))
    return ragged.from_rows(rows)


def measure(tower: Tower, texts: Sequence[str], what: str) -> Int[np.ndarray, "n"]:
    """Tokens of each text, special ones included; says how many the tower has to cut.

    Args:
      tower: a text tower.
      texts: n captions.
      what: for the progress line.
    """
    blocks = range(0, len(texts), 4096)
    parts = track(blocks, f"measuring {what}", len(blocks), "blocks of 4096")
    lengths = np.concatenate([tower.prepare.lengths(texts[i : i + 4096]) for i in parts])
    longest = tower.prepare.max_length
    cut = int((lengths > longest).sum())
    if cut and hosts.is_first():
        print(f"{what}: {cut} of {len(texts)} are cut to {longest} tokens", file=sys.stderr)
    return lengths
