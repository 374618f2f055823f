"""Free pairs behind the pairs that closed forms are solved on (`data.classes.free_pairs`)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from ape_jax.align.closed_form.paired import Paired
from ape_jax.storage.row_array import RowArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Free:
    """Free pairs: vectors in the place of images, and their texts.

    Attributes:
      text: one vector per distinct text, float [m, d], an array or what is read like one.
      image: one vector a class, float [c, k], as image features before they are standardised.
      text_index: the text of each free pair, integer [q].
      image_index: the class of each, integer [q], ascending.
    """

    text: RowArray
    image: Float[np.ndarray, "c k"]
    text_index: Integer[np.ndarray, " q"]
    image_index: Integer[np.ndarray, " q"]


def appended(paired: Paired, free: Free, weight: float) -> Paired:
    """Appends free pairs, which are fitted to and never held out.

    All of them together count `weight` times as much as all pairs together. Each class counts
    alike, whatever the number of its names. The covariance of views stays that of the images.

    Example:
      >>> from ape_jax.align.closed_form import from_rows
      >>> x = np.eye(3)
      >>> free = Free(text=x[:2], image=x[1:], text_index=np.arange(2), image_index=np.arange(2))
      >>> appended(from_rows(x, x), free, 0.5).weights.tolist()
      [1.0, 1.0, 1.0, 0.75, 0.75]

    Args:
      paired: the pairs.
      free: the free pairs.
      weight: above 0.
    """
    names = np.bincount(free.image_index, minlength=len(free.image))
    share = 1 / names[free.image_index]
    own = np.ones(len(paired.text_index)) if paired.weights is None else paired.weights
    views = paired.image.shape[1]
    return dataclasses.replace(
        paired,
        text=_Stacked(paired.text, free.text),
        image=_Stacked(paired.image, _Views(free.image, views)),
        text_index=np.concatenate([paired.text_index, free.text_index + len(paired.text)]),
        image_index=np.concatenate([paired.image_index, free.image_index + len(paired.image)]),
        weights=np.concatenate([own, share * (weight * own.sum() / share.sum())]),
        extra=len(free.image),
    )


class _Views:
    """One vector each, as so many equal views, [n, V, k]."""

    def __init__(self, rows: np.ndarray, views: int):
        self._rows, self._views = rows, views
        self.shape: tuple[int, ...] = (len(rows), views, rows.shape[1])
        self.dtype: np.dtype = rows.dtype

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes * self._views

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.repeat(self._rows[index][:, None], self._views, axis=1)


class _Stacked:
    """Rows, and behind them others of the same shape."""

    def __init__(self, first: RowArray, second: RowArray):
        if first.shape[1:] != second.shape[1:]:
            raise ValueError(f"rows of shape {first.shape[1:]} and {second.shape[1:]}")
        self._first, self._second = first, second
        self.shape: tuple[int, ...] = (len(first) + len(second), *first.shape[1:])
        self.dtype = np.promote_types(first.dtype, second.dtype)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else index
        behind = rows >= len(self._first)
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if not behind.all():
            out[~behind] = self._first[rows[~behind]]
        if behind.any():
            out[behind] = self._second[rows[behind] - len(self._first)]
        return out
