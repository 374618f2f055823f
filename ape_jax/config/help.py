"""The keys of a config as people look them up: `--help-config` and the reference in the docs."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any

from ape_jax.config import schema
from ape_jax.config.components import (
    CLOSED_FORMS,
    LOSSES,
    ClosedFormSpec,
    HeadSpec,
    LossSpec,
    SideName,
    heads_of,
)
from ape_jax.config.experiment import Config

_SIDES: tuple[SideName, ...] = ("image", "text")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One key.

    Attributes:
      key: dotted name, as after `--config.`.
      group: the name without its last part, "" for the few without a section.
      default: value where none is given.
      takes: what the value may be.
      why: what the key does, or what it is for.
      components: names of the heads, losses or closed forms with which it has an effect; empty for
        a key that has one with all.
    """

    key: str
    group: str
    default: Any
    takes: str
    why: str
    components: tuple[str, ...] = ()


def rows(pattern: str = "", kind: type[Config] = Config) -> list[Row]:
    """The keys whose name, or line of explanation, matches.

    >>> rows("optim.lr")[0].why
    'Peak learning rate.'

    Args:
      pattern: part of a name or of its line, with `*` for anything; "" for all keys.
      kind: the class whose keys they are.
    """
    used = _components()
    found = []
    for key, field in schema.keys(kind).items():
        names = used.get(key, ())
        if _matches(pattern, key, field.why, *names):
            row = Row(
                key=key,
                group=key.rpartition(".")[0],
                default=field.default,
                takes=field.words,
                why=field.why,
                components=names,
            )
            found.append(row)
    return found


def components() -> dict[str, dict[str, str]]:
    """Heads, losses and closed forms: name and title, by the key that takes the name.

    >>> components()["loss.name"]["softmax"]
    'softmax (CLIP)'
    """
    heads = {f"{side}.head.name": heads_of(side) for side in _SIDES}
    kinds: Mapping[str, Mapping[str, HeadSpec | LossSpec | ClosedFormSpec]] = {
        **heads,
        "loss.name": LOSSES,
        "method": CLOSED_FORMS,
    }
    return {
        key: {name: component.title for name, component in registry.items()}
        for key, registry in kinds.items()
    }


def text(pattern: str = "", kind: type[Config] = Config) -> str:
    """The keys that match, by group, for a terminal."""
    groups: dict[str, list[str]] = {}
    for row in rows(pattern, kind):
        only = f" (with {', '.join(row.components)})" if row.components else ""
        lines = [f"  {row.key} = {row.default!r}", f"      {row.why}{only}", f"      {row.takes}"]
        groups.setdefault(row.group, []).append("\n".join(lines))
    named = [(f"{group}:\n" if group else "") + "\n".join(keys) for group, keys in groups.items()]
    return "\n\n".join(named)


def _components() -> dict[str, tuple[str, ...]]:
    """By key, the components that declare it."""
    found: dict[str, tuple[str, ...]] = {}
    sections: Mapping[str, Mapping[str, HeadSpec | LossSpec | ClosedFormSpec]] = {
        **{f"{side}.head": heads_of(side) for side in _SIDES},
        "loss": LOSSES,
        "closed": CLOSED_FORMS,
    }
    for section, registry in sections.items():
        for name, component in registry.items():
            for key in component.keys:
                dotted = f"{section}.{key}"
                found[dotted] = (*found.get(dotted, ()), name)
    return found


def _matches(pattern: str, *words: str) -> bool:
    return any(fnmatch.fnmatch(word.lower(), f"*{pattern.lower()}*") for word in words)
