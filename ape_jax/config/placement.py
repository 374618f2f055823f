"""Sharding rules (`mesh.rules`): pairs (regular expression, where) that place parameters by name.

The first rule that matches a parameter's whole name decides. `where` is "replicated", or names the
dimensions that are split and the mesh axes that they are split over: "-1:fsdp", "0:data,2:fsdp",
"1:data+fsdp". Parameter names are paths, "text_tower/blocks/mlp/fc1/kernel"; the blocks of a tower
are stacked, so dimension 0 of their parameters counts layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ape_jax.errors import UserError

AXES = ("data", "fsdp")
EXPECTS = (
    "pairs (regular expression, 'replicated' or 'DIMENSION:AXIS' such as '-1:fsdp', axes being "
    f"{' and '.join(AXES)})"
)

Rules = Sequence[tuple[str, str]]
Shape = tuple[int, ...]

_REPLICATED = "replicated"
_PART = re.compile(r"(-?\d):(data|fsdp|data\+fsdp|fsdp\+data)")


def is_rules(value: Any) -> bool:
    """Whether it lists (regular expression, where)."""
    ok = isinstance(value, tuple) and all(isinstance(v, tuple) and len(v) == 2 for v in value)
    return ok and all(isinstance(x, str) for v in value for x in v) and all(map(_is_rule, value))


def _is_rule(rule: tuple[str, str]) -> bool:
    try:
        re.compile(rule[0])
    except re.error:
        return False
    parts = [] if rule[1] == _REPLICATED else rule[1].split(",")
    if not all(map(_PART.fullmatch, parts)):
        return False
    axes = [axis for _, names in _parse(rule[1]) for axis in names]
    return len(set(axes)) == len(axes)


def find(rules: Rules, name: str) -> str | None:
    """Returns the `where` of the first rule that matches a parameter, or None."""
    return next((where for pattern, where in rules if re.fullmatch(pattern, name)), None)


def split(where: str, rank: int) -> tuple[tuple[str, ...] | None, ...]:
    """Returns the mesh axes of each dimension of an array; None for one that is not split."""
    axes: list[tuple[str, ...] | None] = [None] * rank
    for dimension, names in _parse(where):
        axes[dimension] = names
    return tuple(axes)


def check(rules: Rules, shapes: Mapping[str, Shape], mesh: Mapping[str, int]) -> None:
    """Checks rules against a model and a mesh.

    Args:
      rules: rules that pass `is_rules`.
      shapes: shapes of all parameters, frozen and trained, by name.
      mesh: the length of each axis.

    Raises:
      UserError: for a rule that matches nothing, names an axis that this mesh does not have, or
        splits a dimension that a parameter does not have or that does not divide.
    """
    for pattern, where in rules:
        matched = {name: shape for name, shape in shapes.items() if re.fullmatch(pattern, name)}
        if not matched:
            raise UserError(
                f"config.mesh.rules: {pattern!r} matches no parameter; write one that does, such "
                f"as {next(iter(shapes))!r}"
            )
        _check_axes(where, mesh)
        for name, shape in matched.items():
            if find(rules, name) == where:
                _check_shape(where, name, shape, mesh)


def _check_axes(where: str, mesh: Mapping[str, int]) -> None:
    for _, names in _parse(where):
        for name in names:
            if name not in mesh:
                raise UserError(
                    f"config.mesh.rules: {where!r} splits over {name!r}, which this mesh does not "
                    f"have; write mesh.fsdp of 2 or more, or another axis ({', '.join(mesh)})"
                )


def _check_shape(where: str, name: str, shape: Shape, mesh: Mapping[str, int]) -> None:
    split_dimensions = []
    for dimension, names in _parse(where):
        parts = math.prod(mesh[axis] for axis in names)
        if not -len(shape) <= dimension < len(shape):
            raise UserError(
                f"config.mesh.rules: {where!r} splits dimension {dimension} of {name}, which has "
                f"the shape {shape}; write a dimension that it has, or a narrower expression"
            )
        if shape[dimension] % parts:
            raise UserError(
                f"config.mesh.rules: {where!r} splits dimension {dimension} of {name}, whose "
                f"{shape[dimension]} entries do not divide over {parts} devices; write another"
            )
        split_dimensions.append(dimension % len(shape))
    if len(set(split_dimensions)) < len(split_dimensions):
        raise UserError(
            f"config.mesh.rules: {where!r} splits one dimension of {name} {shape} twice; join the "
            "axes, 'DIMENSION:data+fsdp'"
        )


def _parse(where: str) -> list[tuple[int, tuple[str, ...]]]:
    if where == _REPLICATED:
        return []
    parts = (part.split(":") for part in where.split(","))
    return [(int(dimension), tuple(axes.split("+"))) for dimension, axes in parts]
