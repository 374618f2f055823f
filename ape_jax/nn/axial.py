"""Rotary positions on a grid of patches: half of a head's channels turns with each axis."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float32

from ape_jax.errors import UserError
from ape_jax.nn.positions import rotary_frequencies


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axial:
    """How patches are turned by their places (RoPE-ViT, arXiv 2403.13298); hashable.

    Attributes:
      theta: the base of the frequencies.
      centered: coordinates are those of the patches' centres, from -1 to 1 along each axis whatever
        the size of the image, in whole turns (DINOv3); if not, rows and columns are counted from 0,
        in radians.
      offset: added to what is counted (Perception Encoder).
      reference: counted rows and columns are stretched as if there were so many (EVA-02).
      across_first: the first half of the channels belongs to the columns, not to the rows.
      interleaved: see `attention.Attention`.
    """

    theta: float
    centered: bool = False
    offset: float = 0.0
    reference: int | None = None
    across_first: bool = False
    interleaved: bool = False

    def angles(self, grid: tuple[int, int], width: int) -> Float32[np.ndarray, "n r"]:
        """The angle of every pair of channels at every patch.

        >>> Axial(theta=100.0).angles((1, 2), 8).tolist()
        [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.10000000149011612]]

        Args:
          grid: patches (down, across).
          width: channels of a head.

        Returns:
          f32 [down * across, width / 2], of patches in reading order.
        """
        frequencies = rotary_frequencies(width // 2, self.theta)
        down, across = (self._coordinates(count)[:, None] * frequencies for count in grid)
        shape = (*grid, frequencies.size)
        axes = np.broadcast_to(down[:, None], shape), np.broadcast_to(across[None], shape)
        joined = np.concatenate(axes[::-1] if self.across_first else axes, axis=-1)
        return joined.reshape(-1, 2 * frequencies.size).astype(np.float32)

    def _coordinates(self, count: int) -> Float32[np.ndarray, " n"]:
        """The places along one axis, in radians at a frequency of 1."""
        places = np.arange(count, dtype=np.float32) + np.float32(self.offset)
        if self.centered:
            return np.float32(2 * math.pi) * (
                2 * (places + np.float32(0.5)) / np.float32(count) - 1
            )
        return places if self.reference is None else places / count * np.float32(self.reference)


def square(patches: int) -> tuple[int, int]:
    """The grid of a square image of so many patches.

    >>> square(16)
    (4, 4)

    Raises:
      UserError: for a number that is no square.
    """
    side = math.isqrt(patches)
    if side * side != patches:
        raise UserError(
            f"{patches} patches are no square, so that nothing says where each is; write "
            "grid=(down, across)"
        )
    return side, side
