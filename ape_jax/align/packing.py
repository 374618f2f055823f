"""Features at the frontier: of images, of captions, and packed captions with their pooling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ape_jax.config import poolings
from ape_jax.nn.tree import Tree


class Packed(Tree):
    """A batch of B = G * b captions in G packing groups; caption i is in group i // b.

    The tokens of a group are concatenated in the order of its captions and followed by padding.
    Each device has one group, or several if the batch is embedded in chunks. No computation mixes
    groups, so a batch that is sharded over G needs no communication.

    Example:
      >>> packed = Packed(
      ...     tokens=jnp.array([[[1.0], [3.0], [5.0], [0.0]]]), lengths=jnp.array([[2, 1]])
      ... )
      >>> packed.segments().tolist(), packed.pool("mean").tolist()
      ([[0, 0, 1, 2]], [[2.0], [5.0]])

    Attributes:
      tokens: token encodings, f32 or bf16 [G, S, d], zero in the padding.
      lengths: number of tokens of each caption, i32 [G, b]; their sum is at most S.
      ids: vocabulary index of each token, i32 [G, S]; only for lookup heads.
      token_index: index in its group of each token of each caption, i32 [G, b, T], S or more after
        the last token; only for heads in which tokens attend to each other.
    """

    tokens: Float[Array, "G S d"]
    lengths: Int[Array, "G b"]
    ids: Int[Array, "G S"] | None = None
    token_index: Int[Array, "G b T"] | None = None

    def segments(self) -> Int[Array, "G S"]:
        """Index in its group of the caption of each token; b in the padding."""
        return _segments(self.lengths, self.tokens.shape[1])

    def padded(self) -> Float[Array, "B T d"]:
        """Returns the tokens padded to T, zero after the last token of each caption."""
        groups, captions, length = self._token_index().shape
        rows = _rows(self.tokens, self._token_index().reshape(groups, -1), "fill")
        return rows.reshape(groups * captions, length, -1)

    def padded_mask(self) -> Bool[Array, "B T"]:
        """Mask of the real tokens of `padded`."""
        return (self._token_index() < self.tokens.shape[1]).reshape(
            -1, self._token_index().shape[2]
        )

    def pack(self, x: Float[Array, "B T w"]) -> Float[Array, "G S w"]:
        """Inverse of `padded`: packs `x` as `tokens` are packed, with zeros in the padding.

        Args:
          x: one vector per padded token.
        """
        groups, captions, length = self._token_index().shape
        segments = self.segments()
        starts = jnp.cumsum(self.lengths, axis=1) - self.lengths
        start = jnp.take_along_axis(starts, jnp.minimum(segments, captions - 1), axis=1)
        index = segments * length + jnp.arange(segments.shape[1]) - start
        index = jnp.where(segments < captions, index, captions * length)
        return _rows(x.reshape(groups, captions * length, -1), index, "fill")

    def spread(self, pooled: Float[Array, "B w"]) -> Float[Array, "G S w"]:
        """Gives each token what its caption has; zero in the padding.

        Args:
          pooled: one vector a caption.
        """
        return _rows(pooled.reshape(*self.lengths.shape, -1), self.segments(), "fill")

    def _token_index(self) -> Int[Array, "G b T"]:
        if self.token_index is None:
            raise ValueError("a head that attends needs the token_index of the captions")
        return self.token_index

    def pool(self, pooling: str) -> Float[Array, "B e"]:
        """Pools the tokens of each caption to one f32 vector, as `towers.tower.pool` does.

        Args:
          pooling: a mode, or several joined by "+" (`config.poolings`).

        Raises:
          ValueError: for another pooling.
        """
        parts = poolings.parts(pooling)
        if not parts:
            raise ValueError(f"captions are not pooled by {pooling!r}")
        pooled = [self._pooled(part).astype(jnp.float32) for part in parts]
        pooled = [part.reshape(-1, part.shape[-1]) for part in pooled]
        return pooled[0] if len(pooled) == 1 else jnp.concatenate(pooled, axis=-1)

    def _pooled(self, mode: str) -> Float[Array, "G b d"]:
        """One mode."""
        ends = jnp.cumsum(self.lengths, axis=1)
        if mode in ("cls", "last"):
            index = ends - self.lengths if mode == "cls" else ends - 1
            return _rows(self.tokens, jnp.where(self.lengths > 0, index, -1), "fill")
        tokens = self.tokens.astype(jnp.float32)
        if mode == "max":
            return _segment_max(tokens, self.lengths)
        if mode == "mean":
            return segment_mean(tokens, self.lengths)
        count = self.lengths[..., None].astype(jnp.float32)
        if mode == "mean_sqrt_len":
            return segment_mean(tokens, self.lengths) * jnp.sqrt(count)
        starts = jnp.pad(ends - self.lengths, ((0, 0), (0, 1)))
        start = jnp.take_along_axis(starts, self.segments(), axis=1)
        place = jnp.arange(1, tokens.shape[1] + 1) - start  # From 1 in each caption.
        mean = segment_mean(tokens * place[..., None].astype(jnp.float32), self.lengths)
        return mean * 2.0 / (count + 1.0)  # 1 + ... + n is n (n + 1) / 2.


class ImageFeatures(Tree):
    """Features of images at the frontier: exactly one of the fields.

    Attributes:
      pooled: f32 [B, d] of a frozen tower, standardised if the model says so; all tokens
        [B, T, d] where nothing is pooled.
      image: f32 [B, H, W, 3] for a tower that is trained from the bottom on.
      hidden: f32 or bf16 [B, T, d], the hidden state under the first trained block.
    """

    pooled: Float[Array, "B d"] | Float[Array, "B T d"] | None = None
    image: Float[Array, "B H W 3"] | None = None
    hidden: Float[Array, "B T d"] | None = None


class TextFeatures(Tree):
    """Features of captions at the frontier: `packed`, or the mask and one of the others.

    Attributes:
      mask: bool [B, T], true at real tokens.
      tokens: f32 or bf16 [B, T, d] of a frozen tower.
      ids: i32 [B, T] for a tower that is trained from the bottom on; beside tokens where they are
        known.
      packed: tokens of a frozen tower, without padding.
      hidden: f32 or bf16 [B, T, d], the hidden state under the first trained block.
    """

    mask: Bool[Array, "B T"] | None = None
    tokens: Float[Array, "B T d"] | None = None
    ids: Int[Array, "B T"] | None = None
    packed: Packed | None = None
    hidden: Float[Array, "B T d"] | None = None


@jax.custom_vjp
def segment_mean(
    tokens: Float[Array, "G S d"], lengths: Int[Array, "G b"]
) -> Float[Array, "G b d"]:
    """Mean of the tokens of each caption; zero for a caption without tokens.

    Args:
      tokens: f32, packed as in `Packed`.
      lengths: number of tokens of each caption.
    """
    return _mean_forward(tokens, lengths)[0]


def _mean_forward(tokens, lengths):
    segments = _segments(lengths, tokens.shape[1])

    # A sorted scatter-add is one pass over the tokens. On a CPU, products with a block-diagonal
    # matrix of ones and sums over aligned powers of two took 3 to 9 times as long.
    # The padding's segment is out of range, and dropped.
    def sums(tokens: Array, segments: Array) -> Array:
        return jax.ops.segment_sum(tokens, segments, lengths.shape[1], indices_are_sorted=True)

    # The TPU compiler spends minutes on whether to fuse all that made the tokens into the scatter.
    tokens = jax.lax.optimization_barrier(tokens)
    return jax.vmap(sums)(tokens, segments) / _divisor(lengths), (segments, lengths)


def _mean_backward(saved, cotangent):
    # Divided before the gather: automatic differentiation would keep the same order, but not know
    # that no two tokens write to one place.
    segments, lengths = saved
    return _rows(cotangent / _divisor(lengths), segments, "fill"), None


segment_mean.defvjp(_mean_forward, _mean_backward)


def _segment_max(
    tokens: Float[Array, "G S d"], lengths: Int[Array, "G b"]
) -> Float[Array, "G b d"]:
    """The largest of each number over the tokens of each caption; zero without tokens."""

    def largest(tokens: Array, segments: Array) -> Array:
        return jax.ops.segment_max(tokens, segments, lengths.shape[1], indices_are_sorted=True)

    found = jax.vmap(largest)(tokens, _segments(lengths, tokens.shape[1]))
    return jnp.where(lengths[..., None] > 0, found, 0.0)


def _divisor(lengths: Int[Array, "G b"]) -> Float[Array, "G b 1"]:
    return jnp.maximum(lengths, 1)[..., None].astype(jnp.float32)


def _segments(lengths: Int[Array, "G b"], size: int) -> Int[Array, "G S"]:
    """Segment of each token: the number of captions that end at or before it."""

    def of_group(lengths: Array) -> Array:
        ends = jnp.zeros(size + 1, jnp.int32).at[jnp.cumsum(lengths)].add(1, mode="drop")
        return jnp.cumsum(ends[:size])

    return jax.vmap(of_group)(lengths)


def _rows(x: Float[Array, "G n d"], index: Int[Array, "G m"], mode: str) -> Float[Array, "G m d"]:
    """`x[g, index[g]]`; an index out of range gives zeros with mode "fill"."""
    return jax.vmap(lambda x, i: x.at[i].get(mode=mode, fill_value=0))(x, index)
