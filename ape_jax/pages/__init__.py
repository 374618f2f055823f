"""Something to look at: one self-contained HTML file about a run."""

from ape_jax.pages.run import write

__all__ = ["write"]
