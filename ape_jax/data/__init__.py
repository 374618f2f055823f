"""Pairs of images and captions, from their files to a device-ready batch."""

from ape_jax.data.labelled import Labelled, open_labelled
from ape_jax.data.pairs import Pair, Pairs
from ape_jax.data.specs import open_pairs

__all__ = ["Labelled", "Pair", "Pairs", "open_labelled", "open_pairs"]
