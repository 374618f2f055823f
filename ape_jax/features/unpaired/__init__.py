"""Images and texts without partners, encoded as pairs are."""

from ape_jax.features.unpaired.features import Unpaired, UnpairedPart, encoded_texts

__all__ = ["Unpaired", "UnpairedPart", "encoded_texts"]
