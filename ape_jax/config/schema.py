"""The schema of a config class: its keys by dotted name, and values that are checked by it."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from ape_jax.config import synonyms
from ape_jax.config.fields import Field
from ape_jax.config.section import OpenSection, Section
from ape_jax.errors import UserError

S = TypeVar("S", bound=Section)


def keys(kind: type[Section], prefix: str = "") -> dict[str, Field]:
    """Every key of a section and of the sections in it: `{"train.batch": Field, ...}`."""
    found: dict[str, Field] = {}
    for field in dataclasses.fields(kind):
        if "section" in field.metadata:
            found |= keys(field.metadata["section"], f"{prefix}{field.name}.")
        elif "key" in field.metadata:
            found[prefix + field.name] = field.metadata["key"]
    for name, declaration in _declarations(kind).items():
        if prefix + name in found:
            raise ValueError(f"a component declares {prefix + name!r}, which is a key already")
        found[prefix + name] = declaration
    return found


def _declarations(kind: type[Section]) -> Mapping[str, Field]:
    """The keys of a section that components declare."""
    return kind.declarations() if issubclass(kind, OpenSection) else {}


def harmless(kind: type[Section], prefix: str = "") -> frozenset[str]:
    """The keys that may change between two starts of one work directory."""
    found: set[str] = set()
    for field in dataclasses.fields(kind):
        if "section" in field.metadata:
            found |= harmless(field.metadata["section"], f"{prefix}{field.name}.")
        elif field.metadata.get("harmless"):
            found.add(prefix + field.name)
    return frozenset(found)


def values(config: Section) -> dict[str, Any]:
    """The values of a config by dotted name, sorted section by section."""
    found: dict[str, Any] = {}
    for name in sorted(config.keys()):
        value = getattr(config, name)
        if isinstance(value, Section):
            found |= {f"{name}.{key}": inner for key, inner in values(value).items()}
        else:
            found[name] = dict(value) if isinstance(value, Mapping) else value
    return found


def checked(kind: type[S], flat: Mapping[str, Any]) -> S:
    """A config of values by dotted name; a key that is left out has its default.

    Raises:
      UserError: naming the first key that is unknown or out of range.
    """
    known = keys(kind)
    for key in flat:
        if key not in known:
            raise UserError(f"config.{key}: no such key{nearest(key, known)}")
    given = {}
    for key, field in known.items():
        given[key] = normalised(flat.get(key, field.default), field)
        if not field.check(given[key]):
            raise UserError(f"config.{key}: expected {field.words}, found {given[key]!r}")
    return _build(kind, given)


def _build(kind: type[S], flat: Mapping[str, Any], prefix: str = "") -> S:
    made: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        name = prefix + field.name
        if "section" in field.metadata:
            made[field.name] = _build(field.metadata["section"], flat, f"{name}.")
        elif "key" in field.metadata:
            value = flat[name]
            made[field.name] = dict(sorted(value.items())) if isinstance(value, Mapping) else value
    declared = {name: flat[prefix + name] for name in _declarations(kind)}
    return kind(**made, **({"declared": declared} if declared else {}))


def normalised(value: Any, field: Field) -> Any:
    """A value as it is kept: by the field's own rule, then like its default."""
    return _like(field.canonical(value) if field.canonical else value, field.default)


def _like(value: Any, like: Any) -> Any:
    """Lists read as tuples and whole numbers as floats where the key holds those."""
    if isinstance(like, tuple) and isinstance(value, list | tuple):
        return tuple(_like(v, ()) if isinstance(v, list) else v for v in value)
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**53 else math.inf
    return value


def nearest(key: str, known: Collection[str]) -> str:
    """The end of an error about an unknown key: the known one that was probably meant.

    Args:
      key: what was written.
      known: the keys that there are.
    """
    last = key.rpartition(".")[2]
    meant = synonyms.key_of(key, known)
    if said := synonyms.sentence_of(key):
        return f"; {said}"
    # A misspelt word, then the same word of another section, then whatever is nearest.
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
    close = close or [k for k in known if k.rpartition(".")[2] == last][:1]
    close = close or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if meant or close:
        return f"; did you mean {meant or close[0]!r}?"
    return "; --help-config lists all keys"
