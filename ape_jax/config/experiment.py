"""The config of an experiment: made, overridden and checked by its schema (`config.schema`).

A config file is Python with `get_config(arg="") -> ml_collections.ConfigDict`; it starts from
`default()` and sets what it changes. `resolve` turns anything a user can write into either a
checked `ConfigDict` or one `UserError` that names the key.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import ml_collections

from ape_jax.config import rules
from ape_jax.config.fields import Field
from ape_jax.config.schema import HARMLESS, SCHEMA
from ape_jax.errors import UserError


def default() -> ml_collections.ConfigDict:
    """Every key of the schema at its default, locked: a key outside the schema cannot be set."""
    defaults = {key: field.default for key, field in SCHEMA.items()}
    return ml_collections.ConfigDict(unflatten(defaults)).lock()


def parse_arg(arg: str | None, **defaults: Any) -> ml_collections.ConfigDict:
    """Reads the part after the colon of `--config file.py:key=value,flag`.

    Args:
      arg: `"image=demo:vit_s14,runlocal"`; a bare name means True.
      **defaults: the names that the file knows, with their defaults, which set the types.

    Raises:
      UserError: for a name that the file does not know, or a value of another type.
    """
    values = dict(defaults)
    for part in filter(None, (arg or "").split(",")):
        name, equals, value = part.partition("=")
        if name not in defaults:
            raise UserError(
                f"--config: the file takes no argument {name!r}{_nearest(name, defaults)}"
            )
        like = defaults[name]
        field = Field(like, f"a value like {like!r}", partial(_is_like, like))
        what = f"--config argument {name!r}"
        values[name] = _parse(what, value if equals else "True", field)
        if not field.check(values[name]):
            raise UserError(f"{what}: expected {field.expects}, found {value!r}")
    return ml_collections.ConfigDict(values)


def override(config: ml_collections.ConfigDict, assignments: Mapping[str, str]) -> None:
    """Applies `--config.key=value` texts in place.

    Raises:
      UserError: for a key outside the schema or a text that is no value of the key's type.
    """
    for key, value in assignments.items():
        group, _, name = key.rpartition(".")
        if group == "data.eval" and name:
            config.data.eval.unlock()
            config.data.eval[name] = value
            continue
        if key not in SCHEMA:
            raise UserError(f"config.{key}: no such key{_nearest(key, SCHEMA)}")
        field = SCHEMA[key]
        parsed = _normalise(_parse(f"config.{key}", value, field), field.default)
        if not field.check(parsed):
            raise UserError(f"config.{key}: expected {field.expects}, found {value!r}")
        node = config[group] if group else config
        with node.ignore_type():
            node[name] = parsed


def resolve(config: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Checks every key and value and returns a fresh, frozen-in-shape config with all keys.

    Raises:
      UserError: naming the first key that is unknown, missing or out of range.
    """
    flat = flatten(config)
    for key in flat:
        if key not in SCHEMA:
            raise UserError(f"config.{key}: no such key{_nearest(key, SCHEMA)}")
    resolved = default()
    for key, field in SCHEMA.items():
        value = _normalise(flat.get(key, field.default), field.default)
        if not field.check(value):
            raise UserError(f"config.{key}: expected {field.expects}, found {value!r}")
        *groups, name = key.split(".")
        node = resolved
        for group in groups:
            node = node[group]
        with node.ignore_type(), node.unlocked():
            node[name] = ml_collections.ConfigDict(value) if isinstance(value, Mapping) else value
    rules.check(resolved, {key: field.default for key, field in SCHEMA.items()})
    return resolved.lock()


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"train.batch": 512, ...}`; a mapping that is itself a value (`data.eval`) stays whole."""
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    flat: dict[str, Any] = {}
    for name, value in config.items():
        key = prefix + name
        if isinstance(value, Mapping) and key not in SCHEMA:
            flat.update(flatten(value, key + "."))
        else:
            flat[key] = dict(value) if isinstance(value, Mapping) else value
    return flat


def digest(config: Mapping[str, Any]) -> str:
    """sha256 of the settings that make a result, as far as they are not the defaults.

    Keys that come with later versions leave it as it is, and so do those of `schema.HARMLESS`.
    """
    own = {
        key: value
        for key, value in flatten(config).items()
        if key not in HARMLESS and value != SCHEMA[key].default
    }
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested form of what `flatten` gives."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, name = key.split(".")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    return nested


def _parse(what: str, written: str, field: Field) -> Any:
    """`written` as a value of the type of the field's default; its range is checked later."""
    if isinstance(field.default, str):
        return written
    try:
        return ast.literal_eval(written)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise UserError(f"{what}: expected {field.expects}, found {written!r}") from None


def _is_like(like: Any, value: Any) -> bool:
    return isinstance(value, type(like)) and isinstance(value, bool) == isinstance(like, bool)


def _normalise(value: Any, like: Any) -> Any:
    """Lists read as tuples and whole numbers as floats where the key holds those."""
    if isinstance(like, tuple) and isinstance(value, list | tuple):
        return tuple(_normalise(v, ()) if isinstance(v, list) else v for v in value)
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**53 else math.inf
    return value


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    same = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]][:1]
    # `depth` is `text.head.depth` rather than any other short word.
    close = ("." not in key and same) or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    close = close or same
    return f"; did you mean {close[0]!r}?" if close else f"; valid ones: {', '.join(known)}"
