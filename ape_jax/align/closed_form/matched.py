"""CCA of few pairs and of unpaired texts and images, which are matched by optimal transport."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from ape_jax import arguments
from ape_jax.align.closed_form.cca import Cca, Spectra
from ape_jax.align.closed_form.paired import Paired
from ape_jax.align.closed_form.sums import check_varies, moments
from ape_jax.align.losses import transport_plan
from ape_jax.errors import UserError, whole_number
from ape_jax.storage.row_array import RowArray, blocks

_BLOCK = 4096  # Rows that are summed together, in float64.
_ITERATIONS = 100
MOST = 4096
"""Texts, and images, that are matched with each other: a plan of them fills 64 MiB."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unmatched:
    """Features of texts and of images that are no pairs; they may lie on disk.

    Attributes:
      text: one vector a text, float [n, d].
      image: one vector per view of an image, float [m, V, k], standardised as those of the pairs.
    """

    text: RowArray
    image: RowArray


def cca_matched(
    paired: Paired,
    unpaired: Unmatched,
    l2: float,
    *,
    text_l2: float = 0.0,
    noise: float = 0.0,
    parts: Sequence[int] = (),
    dim: int = 0,
    power: float = 0.0,
    weight: float = 1.0,
    eps: float = 0.05,
    rounds: int = 1,
    seed: int = 0,
) -> Cca:
    """Computes CCA that learns from unpaired texts and images as well.

    The covariances of texts, and of images, need no pairs: they are those of everything. Of texts
    with images there are the pairs first. Then, in each round, the unpaired texts and images are
    embedded, the entropic transport plan between them says which go together, and the covariance
    under this plan is added to that of the pairs.

    It pays where the unpaired sets hold the partners of each other, or nearly so. Covariances of
    everything without a round are worth less than those of the pairs alone.

    Example:
      >>> from ape_jax.align.closed_form import from_rows
      >>> x = np.random.default_rng(0).normal(size=(300, 3))
      >>> y = x @ np.diag([1.0, 2.0, 3.0])
      >>> few, rest = from_rows(x[:20], y[:20]), Unmatched(text=x[20:], image=y[:19:-1, None])
      >>> np.round(cca_matched(few, rest, 0.01).correlations, 1).tolist()
      [1.0, 0.7, 0.7]

    Args:
      paired: features of the training pairs.
      unpaired: the others.
      l2: regulariser, as in `cca`.
      text_l2: that of the texts, 0 for the same as `l2`.
      noise: weight of the covariance of views, of the images of the pairs, as in `cca`.
      parts: widths of the blocks of the covariance of images, as in `cca`.
      dim: number of directions to use; 0 for all min(d, k).
      power: exponent of the correlations that weight the directions, in the plan as well.
      weight: of the covariance under the plan, where that of the pairs has 1; at least 0.
      eps: entropy of the plan, see `losses.klot`.
      rounds: how often the plan is made anew; 0 leaves the pairs alone to say what goes together.
      seed: of the sample that is matched, where there are more than `MOST` on a side.

    Raises:
      UserError: as `cca`; if widths do not match, or a number is out of range.

    References:
      Alvarez-Melis and Jaakkola, `Gromov-Wasserstein Alignment of Word Embedding Spaces
      <https://arxiv.org/abs/1809.00013>`_, 2018, and Grave et al., `Unsupervised Alignment of
      Embeddings with Wasserstein Procrustes <https://arxiv.org/abs/1805.11222>`_, 2018, refine
      maps by transport plans in the same manner.
    """
    weight, eps = arguments.number(weight, "weight", 0), arguments.number(eps, "eps", 1e-6)
    rounds = whole_number(rounds, "rounds", 0)
    paired.check()
    pairs = moments(paired)
    check_varies(pairs)
    most = min(pairs.text_image.shape)
    widths = unpaired.text.shape[1], unpaired.image.shape[2]
    if widths != pairs.text_image.shape:
        raise UserError(
            f"unpaired texts and images are {widths[0]} and {widths[1]} wide, those of the pairs "
            f"{pairs.text_image.shape[0]} and {pairs.text_image.shape[1]}; give both alike"
        )
    if not 0 <= dim <= most:
        raise UserError(f"dim is {dim}; there are {most} pairs of directions, write 0 to {most}")
    text = _Side(pairs.count, pairs.text_sum, pairs.text_text)
    image = _Side(pairs.count, pairs.image_sum, pairs.image_image)
    text.add(unpaired.text, lambda x: x.astype(np.float64)[:, None])
    image.add(unpaired.image, paired.standardised)
    known = pairs.covariances()[2]
    added = noise * pairs.noise if noise else None
    covariances = text.covariance, image.covariance, known
    spectra = Spectra((text.mean, image.mean), covariances, added, parts)
    x, y = _sample(paired, unpaired, seed)

    def solved() -> Cca:
        fit = spectra.solve(l2, text_l2 or l2)
        return dataclasses.replace(fit, dim=dim or most, power=power, noise=float(noise))

    for _ in range(rounds):
        found = _covariance(x, y, _plan(solved(), x, y, eps))
        spectra.set_cross((known + weight * found) / (1 + weight))
    return solved()


class _Side:
    """Mean and covariance of one modality, over pairs and what is added."""

    def __init__(self, count: float, total: np.ndarray, squares: np.ndarray):
        self._count, self._total, self._squares = count, total, squares

    def add(self, rows: RowArray, read: Callable[[np.ndarray], Float[np.ndarray, "b V d"]]) -> None:
        """Adds rows, by blocks; `read` makes float64 [b, V, d] of a block."""
        for block in blocks(len(rows), _BLOCK):
            views = read(rows[block])
            flat = views.reshape(-1, views.shape[2])
            self._count += len(views)
            self._total = self._total + flat.sum(axis=0) / views.shape[1]
            self._squares = self._squares + flat.T @ flat / views.shape[1]

    @property
    def mean(self) -> Float[np.ndarray, " d"]:
        return self._total / self._count

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        return self._squares / self._count - np.outer(self.mean, self.mean)


def _sample(
    paired: Paired, unpaired: Unmatched, seed: int
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m k"]]:
    """The texts and images that are matched, all where they are few; of an image its mean view."""
    rng = np.random.default_rng(seed)
    chosen = [
        np.sort(rng.permutation(len(rows))[:MOST]) for rows in (unpaired.text, unpaired.image)
    ]
    texts = unpaired.text[chosen[0]].astype(np.float64)
    return texts, paired.standardised(unpaired.image[chosen[1]]).mean(axis=1)


def _plan(fit: Cca, x: np.ndarray, y: np.ndarray, eps: float) -> Float[np.ndarray, "n m"]:
    """The transport plan between embedded texts and images; it sums to 1."""
    ztxt, zimg = (_unit(side) for side in (fit.text(x), fit.image(y)))
    logs = transport_plan((ztxt @ zimg.T).astype(np.float32), eps=eps, iterations=_ITERATIONS)
    plan = np.exp(np.asarray(logs, np.float64))
    return plan / plan.sum()


def _covariance(
    x: np.ndarray, y: np.ndarray, plan: Float[np.ndarray, "n m"]
) -> Float[np.ndarray, "d k"]:
    """Covariance of texts with images that occur together as a plan says."""
    x, y = x - plan.sum(axis=1) @ x, y - plan.sum(axis=0) @ y
    return x.T @ (plan @ y)


def _unit(z: np.ndarray) -> np.ndarray:
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
