"""The trained part: heads, the two-tower model with its frozen frontier, losses, closed forms."""

from ape_jax.align import closed_form, heads, losses
from ape_jax.align.model import Model, Side
from ape_jax.align.packing import ImageFeatures, TextFeatures

__all__ = ["ImageFeatures", "Model", "Side", "TextFeatures", "closed_form", "heads", "losses"]
