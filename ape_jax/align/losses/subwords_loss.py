"""SuperCLIP's side loss: an image predicts which subwords its caption has."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from ape_jax.align.losses.contrastive import by_rows, check_mesh, checked_array
from ape_jax.errors import UserError


def subwords(
    logits: Float[Array | np.ndarray, "n c"],
    targets: Float[Array | np.ndarray, "n c"],
    *,
    mesh: Mesh | None = None,
) -> Float[Array, ""]:
    """Computes the cross entropy of a softmax over subwords with the bags of subwords of captions.

    The targets of a row are divided by their sum, so that they are a distribution, and the loss is
    the mean over rows of

        - sum over c of targets[c] * log softmax(logits)[c]

    Word order and repetition do not matter. The weight of a subword that a caption has is the log
    of its inverse frequency (`align.subwords`), which is 0 for what every caption has. A row
    without targets counts as 0.

    Example:
      >>> import jax.numpy as jnp
      >>> bags = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
      >>> round(float(subwords(jnp.zeros((2, 3)), bags)), 4)  # of three subwords: log 3
      1.0986
      >>> float(subwords(20 * bags, bags)) < 0.4
      True

    Args:
      logits: what the image says of each of C subwords, f32 or bf16 [n, C]; n is the global batch.
        On a mesh the array may be sharded by rows.
      targets: weights of the subwords of each image's caption, at least 0, likewise; no gradient is
        taken with respect to them.
      mesh: mesh over all of whose axes the rows are sharded; None for one device.

    Returns:
      The loss, an f32 scalar.

    Raises:
      UserError: if shapes do not match, or the rows are not divisible by the mesh.

    References:
      Zhao et al., `SuperCLIP: CLIP with Simple Classification Supervision`, 2025; Huang et al.,
      `Classification Done Right for Vision-Language Pre-Training
      <https://arxiv.org/abs/2411.03313>`_, 2024 (the loss).
    """
    logits, targets = (
        checked_array(value, name, jnp.floating)
        for value, name in ((logits, "logits"), (targets, "targets"))
    )
    if logits.ndim != 2 or logits.shape != targets.shape or not logits.size:
        raise UserError(
            f"logits has shape {logits.shape} and targets {targets.shape}; they must be [n, c], "
            "both the same"
        )
    check_mesh(mesh, len(logits), f"logits has {len(logits)} rows")
    logits, targets = (by_rows(x, mesh).astype(jnp.float32) for x in (logits, targets))
    bags = jax.lax.stop_gradient(normalized(targets))
    return -(bags * jax.nn.log_softmax(logits, axis=1)).sum(axis=1).mean()


def normalized(targets: Float[Array, "n c"]) -> Float[Array, "n c"]:
    """Rows that sum to 1; a row of zeros stays as it is."""
    return targets / jnp.maximum(targets.sum(axis=1, keepdims=True), 1e-12)
