"""Free pairs in alignment: rows brought to the place of images, and their part of the loss.

Each row of a supervised tower's classifier is a vector in the space of its features and, with the
name of its class, a pair. *Recycled classifier heads* (ICML 2026) append the rows as they are. But
rows and image features lie apart (a modality gap): rows have another mean and another length. What
is compared with images here has neither difference.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, PyTree

from ape_jax.align.latent import Latent
from ape_jax.align.losses import objective as objective_lib
from ape_jax.align.losses.objective import Objective
from ape_jax.align.model import Batch, Model
from ape_jax.config import Config
from ape_jax.errors import UserError

PREFIX = "free_"
"""Before the names of the arrays of a batch that belong to free pairs."""
_STREAM = 107  # Apart from the streams of `align.latent` and `align.unpaired`.


def placed(
    rows: Float[np.ndarray, "c d"],
    rows_mean: Float[np.ndarray, " d"],
    rows_variance: float,
    mean: Float[np.ndarray, " d"],
    std: Float[np.ndarray, " d"],
) -> Float32[np.ndarray, "c d"]:
    """Rows of a classifier in the place of image features.

    The mean of all the classifier's rows is taken off; one number scales what is left, so that the
    total variance of all rows becomes that of the images; the images' mean is added. No dimension
    is scaled by itself: how far rows differ along one, beside the others, is what the classifier
    has learned. This is done before `image.standardize`, in the space that the rows read, so that
    rows go the way of images from there on, whether these are standardised or not.

    Example:
      >>> rows = np.array([[9.0, 1.0], [11.0, 1.0]])
      >>> placed(rows, rows.mean(0), 1.0, np.array([0.0, 5.0]), np.array([3.0, 4.0])).tolist()
      [[-5.0, 5.0], [5.0, 5.0]]

    Args:
      rows: of the classes that are used.
      rows_mean: of the rows of all classes, those without a name too: a classifier of which only
        birds are named keeps what its birds have in common.
      rows_variance: of all of them, the sum over the dimensions.
      mean: of the image features.
      std: standard deviation of each dimension of the image features.

    Raises:
      UserError: where all rows are the same.

    References:
      Liang et al., "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive
      Representation Learning", arXiv 2203.02053.
    """
    if not rows_variance > 0:
        raise UserError(
            "config.classifier.weight: all rows of the classifier are the same; write 0, or "
            "another image.tower"
        )
    scale = np.sqrt(np.square(std.astype(np.float64)).sum() / rows_variance)
    return (mean + scale * (rows.astype(np.float64) - rows_mean)).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreePairsTerm:
    """The contrastive loss of free pairs among themselves, weight * loss.

    Rows are compared with names of classes and never with captions, nor images with names: that a
    vector is a row and no image could not tell it from its negatives. A name is no negative of a
    row whose name it is, whichever of the row's names the step has drawn.

    Attributes:
      weight: factor of the loss.
      objective: the loss, that of the pairs with one text an image and global negatives.
      latent: augmentation of features, that of the pairs; they are not mixed.
    """

    weight: float
    objective: Objective
    latent: Latent | None = None

    def __call__(
        self,
        model: Model,
        mesh: Mesh | None,
        trainable: PyTree,
        frozen: PyTree,
        batch: Batch,
        rng: Array | None = None,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Computes what is added to the loss, and the loss of free pairs without its factor.

        Args:
          model: the model that is trained.
          mesh: the devices that the batch is sharded over.
          trainable: its trained parameters.
          frozen: the others.
          batch: with the arrays of free pairs, whose names begin with `PREFIX`.
          rng: turns dropout and augmentation on.
        """
        free = {k.removeprefix(PREFIX): x for k, x in batch.items() if k.startswith(PREFIX)}
        image, text = model.image_features(frozen, free), model.text_features(frozen, free)
        keys = (None, None)
        if rng is not None:
            rng = jax.random.fold_in(rng, _STREAM)
            keys = jax.random.split(rng)
            if self.latent is not None:
                image, text = self.latent.perturb(image, text, rng)
        zimg, _ = model.align(trainable, frozen, image, keys[0])
        ztxt, _ = model.align(trainable, frozen, text, keys[1])
        scale, bias = model.logit_scale(trainable, frozen)
        ids, text_ids = free["row_ids"], free["text_ids"]
        loss = self.objective(zimg, ztxt, scale, bias, ids, mesh, text_ids=text_ids)
        return self.weight * loss, loss


def from_config(config: Config, latent: Latent | None = None) -> FreePairsTerm | None:
    """The config's `classifier` group as a part of the loss, None where it is off.

    Args:
      config: a resolved config.
      latent: augmentation of features.
    """
    if not config.classifier.weight:
        return None
    own = objective_lib.from_config(config.loss)
    objective = dataclasses.replace(own, positives=1, hard=0, groups=1)
    return FreePairsTerm(weight=config.classifier.weight, objective=objective, latent=latent)
