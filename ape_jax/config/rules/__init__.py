"""Rules that tie keys of a config together."""

from ape_jax.config.rules.check import HELD_OUT, check

__all__ = ["HELD_OUT", "check"]
