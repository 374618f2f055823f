"""The heads by name: what the config may say, which keys each has, what it wants of a batch."""

from __future__ import annotations

from collections.abc import Mapping

KEYS: Mapping[str, frozenset[str]] = {
    "identity": frozenset(),
    "linear": frozenset(),
    "token_mlp": frozenset({"depth", "width", "activation", "dropout"}),
    "pooled_mlp": frozenset({"depth", "width", "activation", "dropout", "norm"}),
    "residual_mlp": frozenset({"depth", "expansion", "activation", "dropout"}),
    "star_mlp": frozenset({"expansion"}),
    "token_pool_mlp": frozenset({"dropout"}),
    "transformer": frozenset({"depth", "expansion", "activation", "dropout"}),
    "lookup": frozenset(),
}
"""Which keys of `image.head` or `text.head` have an effect with each head."""

TEXT = ("token_mlp", *(name for name in KEYS if name != "token_mlp"))
"""Heads on captions, the default first."""

IMAGE = ("identity", "linear", "pooled_mlp", "residual_mlp", "star_mlp", "token_pool_mlp")
"""Heads on images, the default first; all but the last take one vector an image."""

POOLED = frozenset({"identity", "linear", "pooled_mlp", "residual_mlp", "star_mlp"})
"""Heads on one vector a caption, pooled by `text.pooling`; the others pool for themselves."""

WANTS: Mapping[str, frozenset[str]] = {
    "lookup": frozenset({"ids"}),
    "transformer": frozenset({"places"}),
}
"""What a head needs beside packed tokens: see `align.packing.Packed`."""


def parts(name: str) -> tuple[str, ...]:
    """The heads of a sum, `"linear+lookup"`."""
    return tuple(name.split("+"))


def is_text_head(value: object) -> bool:
    """Whether it is a text head or several, each once, joined by '+'."""
    if not isinstance(value, str):
        return False
    names = parts(value)
    return set(names) <= set(TEXT) and len(set(names)) == len(names)


def wants(name: str) -> frozenset[str]:
    """What a head, or any part of a sum, needs beside tokens."""
    return frozenset().union(*(WANTS.get(part, frozenset()) for part in parts(name)))


def keys(name: str) -> frozenset[str]:
    """The keys that have an effect with a head, or with any part of a sum."""
    return frozenset().union(*(KEYS[part] for part in parts(name)))
