"""The base of all sections of a config, and how a section declares its keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ape_jax.config.fields import Field


def key(field: Field, why: str = "", *, harmless: bool = False) -> Any:
    """Declares a key of a section: the default, check and words of a dataclass field.

    Args:
      field: the kind of value.
      why: one line for `--help-config` and the docs: what the key does, or what it is for.
      harmless: whether it may change between two starts of one work directory, because it leaves
        the result as it is.
    """
    metadata = {"key": field.explained(why), "harmless": harmless}
    if isinstance(field.default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(field.default), metadata=metadata)
    return dataclasses.field(default=field.default, metadata=metadata)


def section(kind: type) -> Any:
    """Declares a section: a dataclass field that holds another dataclass of keys."""
    return dataclasses.field(default_factory=kind, metadata={"section": kind})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """Base of all sections. Reads like a mapping, too: `optim["lr"]`, `Options(**peft)`."""

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None

    def keys(self) -> tuple[str, ...]:
        """The names of the keys."""
        return tuple(field.name for field in dataclasses.fields(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenSection(Section):
    """A section some of whose keys come from components: see `config.components`.

    They are attributes like the others, `head.depth`.

    Attributes:
      declared: their values by name; what is left out has its default.
    """

    declared: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"declared": True}
    )

    def __post_init__(self) -> None:
        """Fills in defaults."""
        defaults = {name: field.default for name, field in self.declarations().items()}
        object.__setattr__(self, "declared", {**defaults, **self.declared})

    def __getattr__(self, name: str) -> Any:
        """Finds a declared key."""
        declared = self.__dict__.get("declared", {})
        if name not in declared:
            raise AttributeError(f"{type(self).__name__} has no key {name!r}")
        return declared[name]

    def keys(self) -> tuple[str, ...]:
        """The names of the keys, the declared ones last."""
        own = super().keys()
        return (*(name for name in own if name != "declared"), *self.declared)

    @classmethod
    def declarations(cls) -> Mapping[str, Field]:
        """The keys that components bring."""
        raise NotImplementedError
