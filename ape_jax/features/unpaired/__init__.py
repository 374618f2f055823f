"""Images and texts without partners, and names of free pairs, encoded as pairs are."""

from ape_jax.features.unpaired.features import Unpaired, UnpairedPart, encoded_texts

__all__ = ["Unpaired", "UnpairedPart", "encoded_texts"]
