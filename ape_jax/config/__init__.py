"""The config of an experiment: its keys, their checks, and the rules that tie them together."""

from ape_jax.config.experiment import (
    default,
    digest,
    flatten,
    override,
    parse_arg,
    resolve,
    unflatten,
)

__all__ = ["default", "digest", "flatten", "override", "parse_arg", "resolve", "unflatten"]
