"""What a user writes: config files, their arguments and `--config.key=value`.

A config file is Python with `get_config(arg="") -> ml_collections.ConfigDict`; it starts from
`default()` and sets what it changes. `resolve` turns anything a user can write into either a
checked `Config` or one `UserError` that names the key.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

import ml_collections

from ape_jax.config import automatic, rules, schema
from ape_jax.config.border import arguments
from ape_jax.config.experiment import Config, flatten, unflatten
from ape_jax.config.fields import BY_DATA, Field
from ape_jax.errors import UserError

C = TypeVar("C", bound=Config)

Argument = str | Mapping[str, Any] | None
"""What a recipe is given: the text after the colon of `--config NAME:`, or values by name."""

OPEN = ("study",)
"""Sections that a config file may fill for the command of that name; others leave them out."""


def default() -> ml_collections.ConfigDict:
    """Every key of the schema at its default, locked: a key outside the schema cannot be set.

    The sections of `OPEN` are empty and take any key; the command that reads them checks it.
    """
    defaults = {key: _any_type(field) for key, field in schema.keys(Config).items()}
    config = ml_collections.ConfigDict({**unflatten(defaults), **{name: {} for name in OPEN}})
    config.lock()
    for name in OPEN:
        _section(config, name).unlock()
    return config


def _any_type(field: Field) -> Any:
    """The default of a field; one of several types, as text or a list, is not held to the first."""
    if field.canonical is None or isinstance(field.default, Mapping):
        return field.default
    return ml_collections.FieldReference(field.default, field_type=object)


def _section(config: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
    return config[name]  # pyright: ignore[reportReturnType]: the stub knows values, not sections.


def parse_arg(arg: Argument, **defaults: Any) -> ml_collections.ConfigDict:
    """Reads the part after the colon of `--config RECIPE:name=value,switch`.

    Args:
      arg: `"image=demo:vit_s14,runlocal"`, where a bare name means True (which commas belong to a
        value: see `arguments`); or values by name, as `ape_jax.fit` gives them.
      **defaults: the names that the file knows, with their defaults, which set the types.

    Raises:
      UserError: for a name that the file does not know, or a value of another type.
    """
    values = dict(defaults)
    if isinstance(arg, Mapping):
        for name, value in arg.items():
            values[name] = _argument(name, value, defaults)
        return ml_collections.ConfigDict(values)
    known = frozenset(schema.keys(Config))
    for name, written in arguments.split(arg or "", defaults):
        if name not in defaults:
            raise arguments.UnknownArgument(name, tuple(defaults), known, written)
        parsed = _parse(f"--config argument {name!r}", written, _like(defaults[name]))
        values[name] = _argument(name, parsed, defaults)
    return ml_collections.ConfigDict(values)


def _argument(name: str, value: Any, defaults: Mapping[str, Any]) -> Any:
    """The value of a recipe's argument, which must be like its default."""
    if name not in defaults:
        raise arguments.UnknownArgument(name, tuple(defaults), frozenset(schema.keys(Config)))
    field = _like(defaults[name])
    if not field.check(value):
        raise UserError(f"--config argument {name!r}: expected {field.words}, found {value!r}")
    return value


def _like(default: Any) -> Field:
    return Field(default, f"a value like {default!r}", partial(_is_like, default))


def override(
    config: ml_collections.ConfigDict, assignments: Mapping[str, str], kind: type[Config] = Config
) -> None:
    """Applies `--config.key=value` texts in place.

    Args:
      config: as a config file gives it.
      assignments: from dotted keys to texts.
      kind: the class whose keys they are.

    Raises:
      UserError: for a key outside the schema or a text that is no value of the key's type.
    """
    known = schema.keys(kind)
    for key, value in assignments.items():
        group, _, name = key.rpartition(".")
        if group in ("data.eval", "data.columns") and name:
            mapping = _section(config, group)
            mapping.unlock()
            mapping[name] = value
            continue
        if _is_foreign(key, kind):
            raise UserError(
                f"config.{key}: only ape_jax.{key.partition('.')[0]} reads it; leave it out"
            )
        if key not in known:
            raise UserError(f"config.{key}: no such key{schema.nearest(key, known)}")
        field = known[key]
        parsed = schema.normalised(_parse(f"config.{key}", value, field), field)
        if not field.check(parsed):
            raise UserError(f"config.{key}: expected {field.words}, found {value!r}")
        node = _section(config, group) if group else config
        with node.ignore_type():
            node[name] = parsed


def resolve(
    config: Config | ml_collections.ConfigDict | Mapping[str, Any], kind: type[C] = Config
) -> C:
    """Checks every key and value, and that they go together.

    Args:
      config: as a config file gives it, flat or nested; what is left out has its default.
      kind: the class to make. The sections of `OPEN` that it does not have are left out.

    Raises:
      UserError: naming the first key that is unknown, missing, out of range or at odds with others.
    """
    flat = {key: value for key, value in flatten(config).items() if not _is_foreign(key, kind)}
    resolved = schema.checked(kind, flat)
    rules.check(resolved, {key: field.default for key, field in schema.keys(kind).items()})
    return resolved


def _is_foreign(key: str, kind: type[Config]) -> bool:
    """Whether a key is of an open section that this class does not have."""
    group = key.partition(".")[0]
    return group in OPEN and all(field.name != group for field in dataclasses.fields(kind))


def _parse(what: str, written: str, field: Field) -> Any:
    """`written` as a value of the type of the field's default; its range is checked later."""
    if isinstance(field.default, str):
        return written
    if written == BY_DATA and field.check(BY_DATA):
        return BY_DATA
    if written == "auto" and field.check(automatic.AUTO):
        return automatic.AUTO
    try:
        return ast.literal_eval(written)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise UserError(f"{what}: expected {field.words}, found {written!r}") from None


def _is_like(like: Any, value: Any) -> bool:
    return isinstance(value, type(like)) and isinstance(value, bool) == isinstance(like, bool)
