"""Images and texts without partners, encoded as pairs are."""

from ape_jax.features.unpaired.features import Unpaired, UnpairedPart

__all__ = ["Unpaired", "UnpairedPart"]
