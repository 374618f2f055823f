"""What is minimised: a contrastive loss with its options, from embeddings and ids to a scalar."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from ape_jax.align.losses.contrastive import Scalar
from ape_jax.align.losses.negatives import Ids
from ape_jax.config.components import LOSSES
from ape_jax.config.sections import LossConfig
from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss and its options.

    Example:
      objective = Objective(name="softmax", same="image+caption")
      loss = objective(zimg, ztxt, scale, bias, objective.ids(batch), mesh)

    Attributes:
      name: of a loss, such as `softmax`.
      same: which pairs are not negatives of each other: those that share an `image`, those that
        share an image or have one text between them (`image+caption`), or `none`. In `none`, other
        captions of an image are its negatives, as in LilT's code.
      options: what the loss itself declares, by name: softmax's `smoothing`, sigmoid's `normalize`.
      positives: P, captions an image. The loss is the mean of P losses, of the images and their
        p-th captions; SAIL has two.
      groups: 1 for the global loss, else into how many runs of consecutive pairs the batch falls
        that see none of each other: LilT's loss on so many GPUs.
      impl: `auto`, `dense` or `ring`, as `losses.softmax` has it.
    """

    name: str = "softmax"
    same: Literal["image", "image+caption", "none"] = "image"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    positives: int = 1
    groups: int = 1
    impl: Literal["auto", "dense", "ring"] = "auto"

    def ids(self, batch: Mapping[str, Array | np.ndarray]) -> Ids | None:
        """What `__call__` wants to know of a batch: i32 [B], [B, 1 + P], or None.

        Args:
          batch: with `index` i32 [B] and, for `image+caption`, `text` i32 [B] or [B, P].
        """
        if self.same == "none":
            return None
        if self.same == "image":
            return batch["index"]
        index = batch["index"]
        return _columns(index, batch["text"].reshape(index.shape[0], self.positives))

    def __call__(
        self,
        zimg: Float[Array | np.ndarray, "B E"],
        ztxt: Float[Array | np.ndarray, "BP E"],
        scale: Scalar,
        bias: Scalar | None,
        ids: Ids | None,
        mesh: Mesh | None = None,
    ) -> Float[Array, ""]:
        """The loss of a global batch.

        Args:
          zimg: unit-length image embeddings.
          ztxt: of the captions, the P of an image after each other: [B * P, E].
          scale: the inverse temperature.
          bias: of a loss with one, such as sigmoid.
          ids: as `ids` gives them, or mixed.
          mesh: the devices that the batch is sharded over.
        """
        captions = ztxt.reshape(zimg.shape[0], self.positives, -1)
        terms = [
            self._loss(zimg, captions[:, p], scale, bias, *self._sides(ids, p), mesh)
            for p in range(self.positives)
        ]
        return sum(terms[1:], terms[0]) / self.positives if self.positives > 1 else terms[0]

    def _sides(self, ids: Ids | None, p: int) -> tuple[Ids | None, Ids | None]:
        """The ids of images, and of their p-th captions where those have others.

        An image has P texts, so a caption is compared with each of them.
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
    ) -> Float[Array, ""]:
        how: dict[str, Any] = {"groups": self.groups, "mesh": mesh, "impl": self.impl}
        how |= {"ids": ids, "text_ids": text_ids}
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
        groups=config.local_groups if config.negatives == "local" else 1,
        impl=config.impl,
    )


def named(loss: Objective | Literal["softmax", "sigmoid"]) -> Objective:
    """An objective, given as one or as the name of a plain one."""
    return Objective(name=loss) if isinstance(loss, str) else loss


def check_batch(objective: Objective, pairs: int) -> None:
    """Raises UserError for a batch, mixed if it is, that does not fall into the groups."""
    if pairs % objective.groups:
        raise UserError(
            f"config.loss.local_groups: {objective.groups} does not divide the {pairs} pairs that "
            "the loss sees; write a divisor"
        )


def _columns(
    first: Int[Array | np.ndarray, " B"], others: Int[Array | np.ndarray, "B P"]
) -> Int[Array, "B 1+P"]:
    return jnp.concatenate([first[:, None], others], axis=1)
