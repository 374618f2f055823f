"""Pairs that a Python program holds: their rows, and the file that they are written to."""

from ape_jax.data.in_memory.spec import as_spec, open_any

__all__ = ["as_spec", "open_any"]
