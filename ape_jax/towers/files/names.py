"""Tensor names in files <-> parameter paths: a declarative table, usable in both directions.

A table is a list of rules such as

    Rule("encoder.layer.{i}.output.dense.weight", "blocks/mlp/fc2/kernel", LINEAR)

`{i}` is the layer; the parameter of all layers together is stacked [L, ...]. Rules whose path the
module does not have (no bias, no LayerScale) are inactive, so one table serves the variants of a
family, and of two active rules for one tensor the later holds; a tensor that only an inactive rule
names is an unexpected tensor. Nothing half-loads: whatever is missing, unexpected or misshapen is
listed from both sides.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ape_jax.errors import UserError
from ape_jax.towers.files import prefixes

Shape = tuple[int, ...]


@runtime_checkable
class Tensors(Protocol):
    """Named arrays in files, read one at a time (see sources.py)."""

    @property
    def label(self) -> str:
        """Their file, for messages."""
        ...

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of each."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One tensor, as it lies in the file."""
        ...


@dataclasses.dataclass(frozen=True)
class Form:
    """Layout of one tensor in the file, both ways.

    Attributes:
      name: for the reader.
      to_param: file array -> parameter array.
      to_file: (parameter array, heads) -> file array.
    """

    name: str
    to_param: Callable[[np.ndarray], np.ndarray]
    to_file: Callable[[np.ndarray, int], np.ndarray]


def _head_split(a: np.ndarray, heads: int) -> np.ndarray:
    return a.reshape(*a.shape[:-1], heads, a.shape[-1] // heads)


def _patches(a: np.ndarray) -> np.ndarray:
    size = round((a.shape[1] / 3) ** 0.5)
    return a.reshape(len(a), 3, size, size)


SAME = Form("same", lambda a: a, lambda a, h: a)
LINEAR = Form("torch linear [out, in]", lambda a: a.T, lambda a, h: a.T)
CONV = Form(
    "torch convolution [out, in, h, w]",
    lambda a: a.transpose(2, 3, 1, 0),
    lambda a, h: a.transpose(3, 2, 0, 1),
)
PATCHES = Form(
    "torch linear on the pixels of a patch [out, c * h * w]",
    lambda a: _patches(a).transpose(2, 3, 1, 0),
    lambda a, h: a.transpose(3, 2, 0, 1).reshape(a.shape[3], -1),
)
LEAD1 = Form("one leading 1", lambda a: a[0], lambda a, h: a[None])
LEAD11 = Form("two leading 1s", lambda a: a[0, 0], lambda a, h: a[None, None])
HEADS_IN = Form("flax [d, H, Dh]", lambda a: a.reshape(a.shape[0], -1), _head_split)
HEADS_BIAS = Form("flax [H, Dh]", lambda a: a.reshape(-1), _head_split)
HEADS_OUT = Form(
    "flax [H, Dh, d]",
    lambda a: a.reshape(-1, a.shape[-1]),
    lambda a, h: a.reshape(h, -1, a.shape[-1]),
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a table.

    Attributes:
      file: the tensor's name in the file, without prefix; `{i}` for the layer.
      path: its parameter path, "/"-separated. Several paths: the file array is cut into as many
        equal parts along its first axis.
      form: how it lies in the file (of each part, if there are several).
      stacked: the file holds all layers of this parameter in one array [L, ...].
      since: the first layer that has it. What lies below is one, and has no part in any output.
    """

    file: str
    path: str | tuple[str, ...]
    form: Form = SAME
    stacked: bool = False
    since: int = 0

    @property
    def paths(self) -> tuple[str, ...]:
        """The path or paths, as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path


def linear(file: str, path: str) -> tuple[Rule, Rule]:
    """The two rules of a torch linear layer."""
    weight = Rule(f"{file}.weight", f"{path}/kernel", LINEAR)
    return weight, Rule(f"{file}.bias", f"{path}/bias")


def gated(file: str, mlp: str, *, first: str = "gate") -> tuple[Rule, Rule]:
    """The two rules of a torch linear layer that holds the gate of an MLP and its `fc1` together.

    Args:
      file: the layer's name.
      mlp: path of the MLP.
      first: the half that comes first, "gate" or "fc1".
    """
    second = "fc1" if first == "gate" else "gate"
    weight, bias = (
        (f"{mlp}/{first}/{leaf}", f"{mlp}/{second}/{leaf}") for leaf in ("kernel", "bias")
    )
    return Rule(f"{file}.weight", weight, LINEAR), Rule(f"{file}.bias", bias)


def fused(
    file: str,
    attention: str = "blocks/attention",
    *,
    parts: tuple[str, ...] = ("query", "key", "value"),
    joint: str = ".",
) -> tuple[Rule, Rule]:
    """The two rules of a torch linear layer that holds queries, keys and values.

    Args:
      file: the layer's name.
      attention: path of the attention.
      parts: what it holds, in its order.
      joint: what stands between the layer's name and "weight".
    """
    weight, bias = (
        tuple(f"{attention}/{name}/{leaf}" for name in parts) for leaf in ("kernel", "bias")
    )
    return Rule(f"{file}{joint}weight", weight, LINEAR), Rule(f"{file}{joint}bias", bias)


def norm(file: str, path: str, *, since: int = 0) -> tuple[Rule, Rule]:
    """The two rules of a torch LayerNorm."""
    scale = Rule(f"{file}.weight", f"{path}/scale", since=since)
    return scale, Rule(f"{file}.bias", f"{path}/bias", since=since)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NameTable:
    """Names of a family's tensors in one kind of file.

    Attributes:
      rules: the tensors that the tower is made of.
      prefixes: what may stand before every name ("", "vit."); the first that fits best is taken.
      ignore: regular expressions (full match, with prefix) of tensors the tower does not use and
        files may hold: classifiers, poolers, the other tower.
      renames: (regular expression, replacement) pairs applied to the file's names first, for
        spellings of older writers ("LayerNorm.gamma").
      constants: what parameters are whose tensors a file may lack, by path.
    """

    rules: tuple[Rule, ...]
    prefixes: tuple[str, ...] = ("",)
    ignore: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def old_spelling(self, name: str) -> str:
        """A name in the file, spelt as the rules spell it."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Assignment of file tensors: `wanted` maps the file name (with prefix) to (rule, layer)."""

    table: NameTable
    prefix: str
    wanted: Mapping[str, tuple[Rule, int | None]]


def _plan(table: NameTable, prefix: str, expected: Mapping[str, Any]) -> Plan:
    wanted: dict[str, tuple[Rule, int | None]] = {}
    for rule in table.rules:
        if not all(p in expected for p in rule.paths):
            continue
        if "{i}" in rule.file:
            for i in range(rule.since, _layers(expected[rule.paths[0]])):
                wanted[prefix + rule.file.replace("{i}", str(i))] = (rule, i)
        else:
            wanted[prefix + rule.file] = (rule, None)
    return Plan(table=table, prefix=prefix, wanted=wanted)


def _layers(stacked: Shape | np.ndarray) -> int:
    """How many layers a parameter of all of them has, by it or its shape."""
    return stacked[0] if isinstance(stacked, tuple) else len(stacked)


def flat_shapes(abstract: Mapping[str, Any]) -> dict[str, Shape]:
    """A parameter tree as {"a/b/c": shape}."""
    flat: dict[str, Any] = flatten_dict(dict(abstract), sep="/")
    return {k: tuple(v.shape) for k, v in flat.items()}


def to_file_array(rule: Rule, parts: Sequence[np.ndarray], heads: int) -> np.ndarray:
    """Parameter arrays (one a path, of one layer unless stacked) -> the file's array."""
    if rule.stacked:
        layers = zip(*parts, strict=True)
        single = dataclasses.replace(rule, stacked=False)
        return np.stack([to_file_array(single, layer, heads) for layer in layers])
    arrays = [rule.form.to_file(np.asarray(p), heads) for p in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=0)


def to_param_arrays(rule: Rule, array: np.ndarray) -> list[np.ndarray]:
    """The file's array -> parameter arrays, one a path (of one layer unless stacked)."""
    if rule.stacked:
        single = dataclasses.replace(rule, stacked=False)
        layers = [to_param_arrays(single, a) for a in array]
        return [np.stack(parts) for parts in zip(*layers, strict=True)]
    return [rule.form.to_param(part) for part in np.split(array, len(rule.paths), axis=0)]


def _file_shape(rule: Rule, layer: int | None, expected: Mapping[str, Shape], heads: int) -> Shape:
    """The shape a tensor must have in the file (found on arrays that own no memory)."""
    parts = []
    for path in rule.paths:
        shape = expected[path][1:] if layer is not None else expected[path]
        parts.append(np.broadcast_to(np.int8(0), shape))
    if rule.stacked:
        inner = dataclasses.replace(rule, stacked=False)
        return (parts[0].shape[0], *to_file_array(inner, [p[0] for p in parts], heads).shape)
    return to_file_array(rule, parts, heads).shape


def match(
    tables: Sequence[NameTable], tensors: Tensors, expected: Mapping[str, Shape], *, heads: int
) -> tuple[Plan, dict[str, str]]:
    """The table and prefix that fit the file best, and {plan name: name in the file}.

    Raises:
      UserError: a tensor is missing, unexpected or misshapen; all of them are listed.
    """
    best: tuple[int, Plan, dict[str, str]] | None = None
    for table in tables:
        spelt = {table.old_spelling(n): n for n in tensors.shapes}
        for prefix in table.prefixes:
            plan = _plan(table, prefix, expected)
            hits = len(plan.wanted.keys() & spelt.keys())
            if best is None or hits > best[0]:
                best = (hits, plan, spelt)
    assert best is not None, "a family needs a name table"
    hits, plan, spelt = best
    if hits < len(plan.wanted):
        hits, plan, spelt = max(
            best,
            *(_wrapped(t, tensors, expected) for t in tables),
            key=lambda found: found[0],
        )
    covered = {p for rule, _ in plan.wanted.values() for p in rule.paths}
    assert covered == set(expected), f"the table has no rule for {set(expected) - covered}"
    plan = dataclasses.replace(plan, wanted=_needed(plan, spelt))
    _check(plan, spelt, tensors, expected, heads)
    return plan, {name: spelt[name] for name in plan.wanted}


def _needed(plan: Plan, spelt: Mapping[str, str]) -> dict[str, tuple[Rule, int | None]]:
    """What is wanted of a file, less what it lacks in all layers and a constant stands for."""
    present = {rule.path for name, (rule, _) in plan.wanted.items() if name in spelt}
    spared = plan.table.constants.keys() - present
    return {name: found for name, found in plan.wanted.items() if found[0].path not in spared}


def _wrapped(
    table: NameTable, tensors: Tensors, expected: Mapping[str, Any]
) -> tuple[int, Plan, dict[str, str]]:
    """The best fit of a table under a prefix that it does not list."""
    spelt = {table.old_spelling(n): n for n in tensors.shapes}
    wanted = _plan(table, "", expected).wanted
    fronts = prefixes.candidates(wanted, spelt)[:4]
    full = [front for front in fronts if prefixes.hits(wanted, spelt, front) == len(wanted)]
    prefixes.only_one(full, tensors.label)
    plan = _plan(table, fronts[0] if fronts else "", expected)
    # What a table ignores it knows by names without a prefix.
    ignored = tuple(re.escape(plan.prefix) + f"(?:{p})" for p in table.ignore)
    plan = dataclasses.replace(
        plan, table=dataclasses.replace(table, ignore=(*table.ignore, *ignored))
    )
    return len(plan.wanted.keys() & spelt.keys()), plan, spelt


def _check(
    plan: Plan,
    spelt: Mapping[str, str],
    tensors: Tensors,
    expected: Mapping[str, Shape],
    heads: int,
) -> None:
    missing, misshapen = [], []
    for name, (rule, layer) in plan.wanted.items():
        if name not in spelt:
            missing.append(name)
            continue
        found = tuple(tensors.shapes[spelt[name]])
        should = _file_shape(rule, layer, expected, heads)
        if found != should:
            misshapen.append(f"{name} is {list(found)} and should be {list(should)}")
    ignore = re.compile("|".join(f"(?:{p})" for p in plan.table.ignore) or r"(?!)")
    extra = [
        n
        for s, n in spelt.items()
        # DINOv3 without registers has an empty tensor of them.
        if s not in plan.wanted and not ignore.fullmatch(s) and 0 not in tensors.shapes[n]
    ]
    problems = [
        f"{title}: {_listing(names)}"
        for title, names in (
            ("missing in the file", missing),
            ("in the file but not in the model", extra),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{tensors.label}: the tensors are not those its config describes; "
            f"{'; '.join(problems)}; write the config.json that belongs to these weights"
        )


def _listing(names: Sequence[str], limit: int = 12) -> str:
    names = sorted(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def load_params(
    plan: Plan,
    found: Mapping[str, str],
    expected: Mapping[str, Shape],
    read: Callable[[str], np.ndarray],
    dtype: Any,
) -> dict[str, Any]:
    """Read every tensor of a plan into the nested parameter tree, in `dtype`."""
    flat: dict[str, np.ndarray] = {p: np.empty(s, dtype) for p, s in expected.items()}
    for path in plan.table.constants.keys() & expected.keys():
        flat[path][...] = plan.table.constants[path]
    for name, (rule, layer) in plan.wanted.items():
        for path, array in zip(rule.paths, to_param_arrays(rule, read(found[name])), strict=True):
            if layer is None:
                flat[path][...] = array
            else:
                flat[path][layer] = array
                flat[path][: rule.since] = 1
    return unflatten_dict(flat, sep="/")


def to_file(
    table: NameTable, params: Mapping[str, Any], *, heads: int, prefix: str = ""
) -> dict[str, np.ndarray]:
    """The way back: a parameter tree -> {file name: array} in the table's naming."""
    flat = {k: np.asarray(v) for k, v in flatten_dict(dict(params), sep="/").items()}
    plan = _plan(table, prefix, flat)
    out = {}
    for name, (rule, layer) in plan.wanted.items():
        parts = [flat[p] if layer is None else flat[p][layer] for p in rule.paths]
        out[name] = np.ascontiguousarray(to_file_array(rule, parts, heads))
    return out
