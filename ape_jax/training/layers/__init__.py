"""Layers and poolings that the training pairs choose, before features are encoded."""

from ape_jax.training.layers.settle import settled

__all__ = ["settled"]
