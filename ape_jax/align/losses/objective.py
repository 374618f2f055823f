"""Training objective: a contrastive loss with its options, from embeddings and ids to a scalar."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from ape_jax.align.heads.base.head import normalize
from ape_jax.align.losses.contrastive import Ids, Scalar
from ape_jax.align.losses.hard import Hard
from ape_jax.config.components import LOSSES
from ape_jax.config.sections import LossConfig
from ape_jax.errors import UserError

HardIds = tuple[Int[Array, "B H"], Int[Array, "B P"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """A contrastive loss with its options.

    Example:
      >>> z, batch = jnp.eye(2), {"index": jnp.array([0, 0])}
      >>> for same in ("image", "none"):  # two captions of one image, negatives or not
      ...     objective = Objective(name="softmax", same=same)
      ...     print(round(float(objective(z, z, jnp.float32(1), None, objective.ids(batch))), 3))
      0.0
      0.313

    Attributes:
      name: name of a registered loss, such as `softmax`.
      same: excludes pairs from each other's negatives if they share an `image`, or an image or a
        text (`image+caption`), or never (`none`: other captions of an image are its negatives, as
        in LilT's code).
      options: options that the loss declares, by name: `smoothing` of softmax, `normalize` of
        sigmoid.
      positives: captions per image, P. The loss is the mean of P losses, of the images with their
        p-th captions; 2 in SAIL.
      hard: negative captions per image, H, which only images are compared with (NegCLIP).
      groups: number of equal, contiguous groups; pairs are negatives only within their group, as in
        LilT's loss on several GPUs. 1 for the global loss.
      impl: `auto`, `dense` or `ring`, as in `losses.softmax`.
      dims: widths of the prefixes that are trained as embeddings, too. The loss is the mean of the
        losses of all numbers and of each prefix, at unit length by itself: Kusupati et al. weight
        the losses alike and add them; their mean has the same direction of descent, and `ln B` is
        still the loss of guessing. () is the loss of all numbers alone.

    References:
      Kusupati et al., "Matryoshka Representation Learning", arXiv 2205.13147, section 3.
    """

    name: str = "softmax"
    same: Literal["image", "image+caption", "none"] = "image"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    positives: int = 1
    hard: int = 0
    groups: int = 1
    impl: Literal["auto", "dense", "ring"] = "auto"
    dims: tuple[int, ...] = ()

    def ids(self, batch: Mapping[str, Array | np.ndarray]) -> Ids | None:
        """Ids of the pairs of a batch for `__call__`: i32 [B], [B, 1 + P], or None.

        Args:
          batch: arrays `index`, i32 [B], and for `image+caption` `text`, i32 [B] or [B, P + H].
        """
        if self.same == "none":
            return None
        if self.same == "image":
            return batch["index"]
        index = batch["index"]
        return _columns(index, self._texts(batch)[:, : self.positives])

    def hard_ids(self, batch: Mapping[str, Array | np.ndarray]) -> HardIds | None:
        """Ids of the negative captions of a batch and of the captions; None for none.

        A text that is one of the captions of its own image, as where an image has fewer negatives
        than H, is none.

        Args:
          batch: as for `ids`.
        """
        if not self.hard:
            return None
        captions, others = jnp.split(self._texts(batch), [self.positives], axis=1)
        own = (others[:, :, None] == captions[:, None, :]).any(axis=2)
        return jnp.where(own, -1, others), captions

    def _texts(self, batch: Mapping[str, Array | np.ndarray]) -> Int[Array, "B c"]:
        return jnp.asarray(batch["text"]).reshape(-1, self.positives + self.hard)

    def __call__(
        self,
        zimg: Float[Array | np.ndarray, "B E"],
        ztxt: Float[Array | np.ndarray, "BP E"],
        scale: Scalar,
        bias: Scalar | None,
        ids: Ids | None,
        mesh: Mesh | None = None,
        hard_ids: HardIds | None = None,
        text_ids: Ids | None = None,
    ) -> Float[Array, ""]:
        """Computes the loss of a global batch.

        Args:
          zimg: image embeddings of unit length.
          ztxt: caption embeddings of unit length, contiguous for an image: its P captions, and then
            its H negative captions.
          scale: factor of the cosines (the inverse of the temperature).
          bias: added to the scaled cosines by sigmoid; None for a loss without bias.
          ids: the result of `ids`, for mixed pairs from both of each.
          mesh: mesh over which the batch is sharded; None for one device.
          hard_ids: the result of `hard_ids`.
          text_ids: of one caption an image: its ids, compared with `ids` by column; None where
            those follow from `ids`.
        """
        rest = scale, bias, ids, mesh, hard_ids, text_ids
        terms = [self._of_captions(zimg, ztxt, *rest)]
        for dim in self.dims:
            image, text = (normalize(jnp.asarray(z[:, :dim])) for z in (zimg, ztxt))
            terms.append(self._of_captions(image, text, *rest))
        return _mean(terms)

    def _of_captions(
        self,
        zimg: Float[Array | np.ndarray, "B E"],
        ztxt: Float[Array | np.ndarray, "BP E"],
        scale: Scalar,
        bias: Scalar | None,
        ids: Ids | None,
        mesh: Mesh | None,
        hard_ids: HardIds | None,
        text_ids: Ids | None,
    ) -> Float[Array, ""]:
        """The mean over the P captions of an image, at one width."""
        captions = ztxt.reshape(zimg.shape[0], self.positives + self.hard, -1)
        hard = None
        if hard_ids is not None:
            hard = Hard(captions[:, self.positives :], *hard_ids)
        return _mean(
            [
                self._loss(zimg, captions[:, p], scale, bias, *sides, mesh, hard)
                for p in range(self.positives)
                for sides in [(ids, text_ids) if text_ids is not None else self._sides(ids, p)]
            ]
        )

    def _sides(self, ids: Ids | None, p: int) -> tuple[Ids | None, Ids | None]:
        """Ids of the images, and of their p-th captions if they differ from those of the images.

        An image has P texts, and a caption is compared with each of them.
        """
        if self.same != "image+caption" or self.positives == 1:
            return ids, None
        if ids is None:
            raise ValueError("image+caption compares ids of images and captions")
        return ids, _columns(ids[:, 0], ids[:, 1 + p, None].repeat(self.positives, axis=1))

    def _loss(
        self,
        zimg: Float[Array | np.ndarray, "B E"],
        ztxt: Float[Array | np.ndarray, "B E"],
        scale: Scalar,
        bias: Scalar | None,
        ids: Ids | None,
        text_ids: Ids | None,
        mesh: Mesh | None,
        hard: Hard | None,
    ) -> Float[Array, ""]:
        how: dict[str, Any] = {"groups": self.groups, "mesh": mesh, "impl": self.impl}
        how |= {"ids": ids, "text_ids": text_ids} | ({} if hard is None else {"hard": hard})
        spec = LOSSES[self.name]
        scalars: tuple[Scalar, ...] = (scale,)
        if spec.bias:
            if bias is None:
                raise ValueError(f"the {self.name} loss has a bias")
            scalars = (scale, bias)
        return spec.function(zimg, ztxt, *scalars, **self.options, **how)


def from_config(config: LossConfig) -> Objective:
    """The config's `loss` group."""
    return Objective(
        name=config.name,
        same=config.same,
        options={key: config[key] for key in LOSSES[config.name].options},
        positives=config.positives,
        hard=config.hard,
        groups=config.local_groups if config.negatives == "local" else 1,
        impl=config.impl,
        dims=config.dims,
    )


def named(loss: Objective | Literal["softmax", "sigmoid"]) -> Objective:
    """Makes an objective with default options from a name; returns an objective as it is."""
    return Objective(name=loss) if isinstance(loss, str) else loss


def check_batch(objective: Objective, pairs: int) -> None:
    """Raises UserError if the groups do not divide the pairs that the loss sees."""
    if pairs % objective.groups:
        raise UserError(
            f"config.loss.local_groups: {objective.groups} does not divide the {pairs} pairs that "
            "the loss sees; write a divisor"
        )


def _mean(terms: Sequence[Float[Array, ""]]) -> Float[Array, ""]:
    """The mean; of one term, that term."""
    return sum(terms[1:], terms[0]) / len(terms) if len(terms) > 1 else terms[0]


def _columns(
    first: Int[Array | np.ndarray, " B"], others: Int[Array | np.ndarray, "B P"]
) -> Int[Array, "B 1+P"]:
    return jnp.concatenate([first[:, None], others], axis=1)
