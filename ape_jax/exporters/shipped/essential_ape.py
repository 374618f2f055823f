"""Stands for the copy of `ape_jax/images/essential.py` that an export holds under this name."""

from ape_jax.images.essential import essential, is_damaged

__all__ = ["essential", "is_damaged"]
