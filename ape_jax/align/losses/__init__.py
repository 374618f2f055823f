"""Losses over the global batch: contrastive ones, and terms that are added to them."""

from ape_jax.align.losses.contrastive import chosen
from ape_jax.align.losses.klot_loss import klot, transport_plan
from ape_jax.align.losses.sigmoid_loss import sigmoid, sigmoid_reference
from ape_jax.align.losses.softmax_loss import softmax, softmax_reference
from ape_jax.align.losses.structure_loss import structure
from ape_jax.align.losses.subwords_loss import subwords

__all__ = [
    "chosen",
    "klot",
    "sigmoid",
    "sigmoid_reference",
    "softmax",
    "softmax_reference",
    "structure",
    "subwords",
    "transport_plan",
]
