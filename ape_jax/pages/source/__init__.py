"""A page about pairs before anything is trained on them: figures, samples, what stands out."""

from ape_jax.pages.source.page import document

__all__ = ["document"]
