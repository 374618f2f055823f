"""Contrastive losses over the global batch."""

from ape_jax.align.losses.contrastive import (
    chosen,
    sigmoid,
    sigmoid_reference,
    softmax,
    softmax_reference,
)

__all__ = ["chosen", "sigmoid", "sigmoid_reference", "softmax", "softmax_reference"]
