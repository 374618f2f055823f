"""Search at size: embedded images on disk, and the nearest of them to a query."""

from ape_jax.search.build import Added, add
from ape_jax.search.identity import identity
from ape_jax.search.index import Index, exists, made_with, maker, open_index

__all__ = ["Added", "Index", "add", "exists", "identity", "made_with", "maker", "open_index"]
