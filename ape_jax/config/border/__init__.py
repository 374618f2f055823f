"""The border of the config: what users write becomes a typed `Config`."""

from ape_jax.config.border.arguments import UnknownArgument
from ape_jax.config.border.configdict import Argument, default, override, parse_arg, resolve

__all__ = ["Argument", "UnknownArgument", "default", "override", "parse_arg", "resolve"]
