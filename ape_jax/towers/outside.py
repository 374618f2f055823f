"""Encoders outside of JAX: frozen models that another library runs, see `towers.torch`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64

from ape_jax.images.decode import load_image
from ape_jax.images.transforms import AsDecoded

OWN = "own"
"""The pooling that the other library computes itself."""


@runtime_checkable
class OutsideEncoder(Protocol):
    """A frozen model of another library, with its own preparation of raw inputs."""

    def prepare(self, items: Sequence[Any]) -> Mapping[str, Any]:
        """Raw images u8 [H, W, 3], or texts, as the model's input; threads may call it."""
        ...

    def tokens(
        self, batch: Mapping[str, Any], layer: int
    ) -> tuple[Float32[np.ndarray, "b t d"], Bool[np.ndarray, "b t"]]:
        """Encodings of all tokens of a prepared batch, and which of them are real.

        Raises:
          UserError: for a layer without them.
        """
        ...

    def own(self, batch: Mapping[str, Any]) -> Float32[np.ndarray, "b e"]:
        """Output of a prepared batch as the library itself pools it."""
        ...

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, "b"]:
        """Tokens of each text before any truncation; a text tower alone has them."""
        ...

    def pools(self) -> bool:
        """Whether the library pools by itself: `own` exists."""
        ...

    def depth(self) -> int:
        """Hidden states behind the first; 0 where the output alone can be read."""
        ...

    def title(self) -> str:
        """The library and the class of the model."""
        ...

    def parameters(self) -> int:
        """Number of the model's parameters."""
        ...

    def settings(self) -> Mapping[str, str]:
        """All that features depend on beside the weights, and that is the tower's own."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that run it."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class OutsidePrepare:
    """Raw inputs -> what an `OutsideEncoder` takes: the `prepare` of its tower.

    Attributes:
      encoder: the model.
      kind: "image" or "text".
    """

    encoder: OutsideEncoder
    kind: Literal["image", "text"]

    def __call__(self, items: Sequence[Any]) -> Mapping[str, Any]:
        """Prepares images (paths, bytes, PIL images or uint8 arrays), or texts."""
        if self.kind == "image":
            items = [load_image(item) for item in items]
        return self.encoder.prepare(items)

    @property
    def transform(self) -> AsDecoded:
        """What becomes of a decoded image before the encoder takes it: nothing."""
        return AsDecoded()

    @property
    def max_length(self) -> int:
        """Tokens that a text is cut to."""
        return int(getattr(self.encoder, "max_length", 0))

    @property
    def identity(self) -> str:
        """What of the preparation is not in the tower's files: the length and the prefix."""
        kept = ("maximum length", "prefix")
        return repr([self.encoder.settings().get(name) for name in kept])


def same_length_batches(lengths: Int[np.ndarray, "n"], rows: int) -> Iterator[Int[np.ndarray, "k"]]:
    """Batches of texts of one length each, longest first.

    Example:
      >>> [batch.tolist() for batch in same_length_batches(np.array([2, 3, 2, 2]), rows=2)]
      [[1], [0, 2], [3]]

    Args:
      lengths: tokens of each text.
      rows: texts a batch, at most.
    """
    order = np.argsort(-lengths, kind="stable")
    for _, group in itertools.groupby(order, key=lambda i: lengths[i]):
        chosen = np.array(list(group))
        for start in range(0, len(chosen), rows):
            yield chosen[start : start + rows]
