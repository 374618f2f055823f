"""Running frozen towers that JAX runs over all images or all captions, once."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, Int32, PyTree

from ape_jax.features.encoder import ImageRows, TextRows
from ape_jax.nn import fused_attention, inference
from ape_jax.parallel import mesh as mesh_lib
from ape_jax.parallel.hosts import say
from ape_jax.terminal.progress import track
from ape_jax.towers.tower import Encoded, Tower

T = TypeVar("T")

# Texts a call of the tokenizer, whose own threads need many at once.
_TOKENISED_TOGETHER = 4096
# Shorter texts than this are encoded more at a time: a call should have some work.
_FULL_LENGTH = 32
_COSTLY = 50_000_000  # Parameters of blocks, between MiniLM's and those of a BERT-base.
_FEWEST, _PADDED = 16, 1.15  # Rows and tokens by real tokens, of a batch of such a tower.
_LONG = 512  # Of longer texts fewer are encoded together.
# Batches at work while the result of an earlier one is fetched.
_AHEAD = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenTower:
    """A `FeatureEncoder` in JAX: a tower, what to read from it, and its parameters on the mesh.

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

    @property
    def is_sliced(self) -> bool:
        """True if images are encoded in the CPU's own way, which rounds otherwise in bf16."""
        # Elsewhere products are fast in their own dtype, and slices would leave units idle.
        return self._on_one_cpu and self.tower.config.kind == "image"

    @functools.cached_property
    def is_costly(self) -> bool:
        """True if padding takes longer than compiling another program: large towers on a CPU."""
        size = sum(x.size for x in jax.tree.leaves(self.params.get("blocks", {})))
        return self._on_one_cpu and size >= _COSTLY

    @property
    def _on_one_cpu(self) -> bool:
        return self.mesh.devices.size == 1 and self.mesh.devices.flat[0].platform == "cpu"

    @functools.cached_property
    def _is_fused(self) -> bool:
        if not fused_attention.available(self.mesh.devices.flat):
            return False
        if why := fused_attention.refusal():
            say(f"attention: cuDNN's cannot be used here, XLA's is ({why})")
        return not why

    @functools.cached_property
    def program(self) -> Callable[[PyTree, Mapping[str, Array]], Encoded]:
        """The forward pass, jitted once for all data sets; its result is on every process."""
        tower, _ = self._forward

        def encode(params: PyTree, batch: Mapping[str, Array]) -> Encoded:
            with fused_attention.allowed(self._is_fused):
                out = tower.apply(params, batch, layer=self.layer, pooling=self.pooling)
            # Tokens of images are large and not wanted.
            return out if out.pooled is None else out.replace(tokens=None, mask=None)

        return jax.jit(encode, out_shardings=mesh_lib.replicated(self.mesh))

    def __call__(self, batch: Mapping[str, np.ndarray], rows: int | None = None) -> Encoded:
        """Starts encoding up to `rows` rows (default: `self.rows`), and fills up to that many."""
        placed = mesh_lib.place_whole_batch(batch, self.mesh, rows or self.rows)
        return self.program(self._forward[1], placed)

    @functools.cached_property
    def _forward(self) -> tuple[Tower, PyTree]:
        """The tower and its parameters as they run: on one CPU, made for that."""
        if not self._on_one_cpu:
            return self.tower, self.params
        narrow = jax.jit(inference.narrow_kernels, static_argnums=1)
        params, tower = narrow(self.params, self.tower.module.dtype), self.tower
        if self.is_sliced:
            tower = dataclasses.replace(tower, module=tower.module.clone(inference=True))
        return tower, params

    def image_shape(self) -> tuple[int, ...]:
        """Shape of an image's features, [d] or [T, d]."""
        size = self.tower.prepare.transform.size
        image = jax.ShapeDtypeStruct((self.rows, size, size, 3), jnp.float32)
        out = self._abstract({"image": image})
        return (out.tokens if out.pooled is None else out.pooled).shape[1:]

    def token_width(self) -> int:
        """Width of a token's encoding."""
        ids = jax.ShapeDtypeStruct((self.rows, 8), jnp.int32)
        mask = jax.ShapeDtypeStruct(ids.shape, bool)
        out = self._abstract({"ids": ids, "mask": mask})
        return (out.tokens if out.pooled is None else out.pooled).shape[-1]

    def _abstract(self, batch: Mapping[str, jax.ShapeDtypeStruct]) -> Encoded:
        """The shapes of what the tower gives."""
        read = functools.partial(self.tower.apply, layer=self.layer, pooling=self.pooling)
        return jax.eval_shape(read, self.params, dict(batch))

    def stream_images(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[ImageRows]:
        """Features of images; see `FeatureEncoder`."""

        def start(batch: Mapping[str, Any]) -> tuple[Mapping[str, Any], Array]:
            out = self({"image": batch["image"]})
            kept = {name: batch[name] for name in ("index", "view", "valid")}
            return kept, out.tokens if out.pooled is None else out.pooled

        for batch, out in _ahead(map(start, batches)):
            valid = batch["valid"]
            yield batch["index"][valid], batch["view"][valid], np.asarray(out, np.float32)[valid]

    def stream_texts(self, texts: Sequence[str], what: str = "captions") -> Iterator[TextRows]:
        """Token encodings of texts without padding, longest first; see `FeatureEncoder`.

        Texts are encoded together with others of like length, so that little padding is computed
        and few programs are compiled; short ones more at a time. Which texts are encoded together
        is a function of `texts` and `rows` alone.
        """
        if not len(texts):
            return
        bodies = _tokenise(self.tower, texts, what)
        batches = text_batches(self, np.array([len(body) for body in bodies]))

        def start(batch: TextBatch) -> tuple[Int[np.ndarray, "k"], Encoded]:
            chosen = [bodies[i] for i in batch.index]
            return batch.index, self(self.tower.prepare.pad(chosen, batch.length), batch.rows)

        for index, out in _ahead(map(start, batches)):
            if out.pooled is not None:  # One vector stands for all tokens.
                yield index, list(np.asarray(out.pooled, np.float32)[: len(index), None])
                continue
            tokens, mask = np.asarray(out.tokens, np.float32), np.asarray(out.mask)
            yield index, [row[kept] for row, kept, _ in zip(tokens, mask, index)]

    def token_counts(self, texts: Sequence[str], what: str) -> Int[np.ndarray, "n"]:
        """Tokens of each text that are encoded; see `FeatureEncoder`."""
        if self.pooling != "none":
            return np.ones(len(texts), int)
        return np.minimum(measure(self.tower, texts, what), self.tower.prepare.max_length)

    def ids_of(self, texts: Sequence[str], lengths: Int[np.ndarray, "n"]) -> Int32[np.ndarray, "S"]:
        """The ids of all texts end to end; see `FeatureEncoder`."""
        flat, done = np.zeros(int(lengths.sum()), np.int32), 0
        starts = range(0, len(texts), _TOKENISED_TOGETHER)
        for start, block in zip(starts, _blocks_of(texts, "ids of captions")):
            batch, wanted = self.tower.prepare(block), lengths[start : start + len(block)]
            kept = np.arange(batch["ids"].shape[1]) < wanted[:, None]
            if (kept & ~batch["mask"]).any() or (kept.sum(axis=1) != wanted).any():
                raise ValueError("there are more encoded tokens than ids")
            count = int(wanted.sum())
            flat[done : done + count] = batch["ids"][kept]
            done += count
        return flat


def _ahead(started: Iterator[T]) -> Iterator[T]:
    """The same items, each handed out when the next `_AHEAD` have been started."""
    waiting: collections.deque[T] = collections.deque()
    for item in started:
        waiting.append(item)
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


@dataclasses.dataclass(frozen=True)
class TextBatch:
    """A batch of texts: their indices, its padded length and its number of rows."""

    index: Int[np.ndarray, "k"]
    length: int
    rows: int


def text_batches(frozen: FrozenTower, bodies: Int[np.ndarray, "n"]) -> Iterator[TextBatch]:
    """All texts, longest first, given how many tokens without special ones each has.

    From the longest on, the first text of a batch decides its shape: one program a length, and
    for the last batch perhaps one more. Where padding costs more than a program, a batch that would
    be padding for the most part has fewer rows.
    """
    order = np.argsort(-bodies, kind="stable")
    lengths, saves = bodies + frozen.tower.prepare.special, frozen.is_costly
    while len(order):
        length = padded_length(frozen.tower, int(bodies[order[0]]))
        full = _full_rows(frozen, length)
        rows, most = full, max(1, _FULL_LENGTH // length) * full
        # Few texts do not fill the rows of a full batch.
        while rows < min(len(order), most):
            rows = min(2 * rows, most)
        while saves and rows >= 2 * _FEWEST:
            if rows * length <= _PADDED * lengths[order[:rows]].sum():
                break
            rows //= 2
        yield TextBatch(order[:rows], length, rows)
        order = order[rows:]


def _full_rows(frozen: FrozenTower, length: int) -> int:
    """Rows of a full batch: of long texts fewer, since their logits grow as the length squared."""
    share = min(1.0, (_LONG / length) ** 2)
    return mesh_lib.round_up(max(1, int(share * frozen.batch)), frozen.mesh)


def padded_length(tower: Tower, body: int) -> int:
    """To how many tokens, special ones included, a text of `body` tokens is padded.

    The steps grow with the length: short texts, of which most data sets consist, feel each token of
    padding, and long ones do not each get a program of their own.
    """
    if tower.prepare.fills:
        return tower.prepare.max_length
    length = body + tower.prepare.special
    step = 2 if length <= 32 else 4 if length <= 64 else 8
    return min(-(-max(length, 1) // step) * step, tower.prepare.max_length)


def _tokenise(tower: Tower, texts: Sequence[str], what: str) -> list[Int[np.ndarray, "_"]]:
    """The ids of each text without special ones, cut to what the tower takes."""
    room = tower.prepare.max_length - tower.prepare.special
    bodies = []
    for block in _blocks_of(texts, what):
        for body in tower.prepare.bodies(block):
            # A list of Python integers takes ten times the memory.
            bodies.append(np.array(tower.prepare.cut(body, room), np.int32))
    return bodies


def measure(tower: Tower, texts: Sequence[str], what: str) -> Int[np.ndarray, "n"]:
    """Tokens of each text, special ones included, before any truncation.

    Args:
      tower: a text tower.
      texts: n captions.
      what: for the progress line.
    """
    return np.concatenate([tower.prepare.lengths(block) for block in _blocks_of(texts, what)])


def _blocks_of(texts: Sequence[str], what: str) -> Iterator[Sequence[str]]:
    starts = range(0, len(texts), _TOKENISED_TOGETHER)
    for start in track(starts, f"tokenising {what}", len(starts), "blocks of 4096"):
        yield texts[start : start + _TOKENISED_TOGETHER]
