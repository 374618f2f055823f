"""Registries: components by name, each declared by its own file and listed in one line.

A registry may lie in a lower room than the files that it lists, because it imports a file only when
its component is asked for. So the config's keys come from the heads' own declarations, although
`config/` knows nothing of `align/`, and `import ape_jax` imports no head.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar, runtime_checkable


@runtime_checkable
class Named(Protocol):
    """A declaration: any object with a name."""

    @property
    def name(self) -> str:
        """Name in the config, on the command line and in tables."""
        ...


T = TypeVar("T", bound=Named)


class Registry(Mapping[str, T], Generic[T]):
    """Components of one kind by name, those of this package first, in the order of the list.

    Iteration and `in` import nothing; looking a component up imports its file.

    Example:
      HEADS: Registry[Head] = Registry(
          "head", {"token_mlp": "ape_jax.align.heads.token_mlp:TOKEN_MLP"}
      )
      HEADS["token_mlp"].keys  # imports ape_jax.align.heads.token_mlp
      HEADS.register(Head(name="mine", ...))  # by a plug-in, before the config is made

    Attributes:
      kind: singular noun for messages, such as "head".
      revision: number of components registered so far; what is derived from the registry and
        cached is out of date when it changes.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str]):
        """Lists the components of this package.

        Args:
          kind: singular noun for messages.
          builtin: from names to "module:ATTRIBUTE", where the attribute is the declaration.
        """
        self.kind = kind
        self.revision = 0
        self._paths = dict(builtin)
        self._found: dict[str, T] = {}

    def register(self, component: T) -> T:
        """Adds a component from outside the package, and returns it.

        Raises:
          ValueError: for a name that another component has.
        """
        if component.name in self:
            if self[component.name] is component:
                return component
            raise ValueError(f"there is a {self.kind} {component.name!r} already; rename yours")
        self._found[component.name] = component
        self._paths[component.name] = ""
        self.revision += 1
        return component

    def unregister(self, name: str) -> None:
        """Removes a component that `register` added; for tests of plug-ins.

        Raises:
          ValueError: for a component of this package, or one that was never registered.
        """
        if self._paths.get(name, "built in"):
            raise ValueError(f"{name!r} is not a {self.kind} that was registered")
        del self._paths[name], self._found[name]
        self.revision += 1

    def __getitem__(self, name: str) -> T:
        """The declaration of this name; a KeyError lists the names that there are."""
        if name not in self._paths:
            raise KeyError(f"no {self.kind} {name!r}; there are {', '.join(map(repr, self))}")
        if name not in self._found:
            module, _, attribute = self._paths[name].partition(":")
            component = getattr(importlib.import_module(module), attribute)
            if component.name != name:
                raise ValueError(
                    f"{self._paths[name]} calls itself {component.name!r} and is listed as {name!r}"
                )
            self._found[name] = component
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is a component of this name."""
        return name in self._paths

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names."""
        return iter(self._paths)

    def __len__(self) -> int:
        """Number of components."""
        return len(self._paths)
