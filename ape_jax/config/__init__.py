"""The config of an experiment: its keys, their checks, and the rules that tie them together.

Users write an `ml_collections.ConfigDict` (`border`); the code reads a typed `Config`.
"""

from ape_jax.config.border import Argument, UnknownArgument, default, override, parse_arg, resolve
from ape_jax.config.experiment import Config, digest, flatten, unflatten
from ape_jax.config.schema import harmless

__all__ = [
    "Argument",
    "Config",
    "UnknownArgument",
    "default",
    "digest",
    "flatten",
    "harmless",
    "override",
    "parse_arg",
    "resolve",
    "unflatten",
]
