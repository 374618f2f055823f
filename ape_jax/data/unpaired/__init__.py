"""Images and texts without partners, for training on more than pairs."""

from ape_jax.data.unpaired.images import open_images
from ape_jax.data.unpaired.texts import UnpairedTexts, open_texts

__all__ = ["UnpairedTexts", "open_images", "open_texts"]
