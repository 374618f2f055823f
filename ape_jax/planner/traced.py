"""Reader of a traced program: its products, loops as often as they run, and its largest arrays.

The compiler's own count has the body of a loop once, however often it runs; a tower whose blocks
are scanned would seem to have one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.interpreters import partial_eval


@dataclasses.dataclass(frozen=True)
class Products:
    """Of one run of a program, over all devices.

    Attributes:
      flops: of its matrix products and convolutions.
      exact: of these, those of exact f32 products, which matrix units have no instruction for.
      unknown: loops whose length is not in the program, counted once.
    """

    flops: float = 0.0
    exact: float = 0.0
    unknown: int = 0

    def __add__(self, other: Products) -> Products:
        return Products(
            self.flops + other.flops, self.exact + other.exact, self.unknown + other.unknown
        )

    def times(self, count: int) -> Products:
        """So many runs of it."""
        return Products(self.flops * count, self.exact * count, self.unknown)


def count(jaxpr: Any) -> Products:
    """The products of a (closed) jaxpr; `jax.jit(f).trace(...).jaxpr` is one.

    Those that no result depends on are left out, as the compiler leaves them out: the gradient by
    an untouched side's embeddings is a quarter of a large batch's loss.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return sum(map(_of, needed.eqns), Products())


def _of(equation: Any) -> Products:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot(equation)
    if name == "conv_general_dilated":
        return _convolution(equation)
    if name == "scan":
        return count(params["jaxpr"]).times(params["length"])
    if name == "while":
        inner = count(params["body_jaxpr"])
        return inner + Products(unknown=1) if inner.flops else inner
    if name == "cond":
        return max((count(branch) for branch in params["branches"]), key=lambda p: p.flops)
    repeats = _shards(equation)
    return sum((count(x).times(repeats) for x in _inner(equation)), Products())


def largest(jaxpr: Any, devices: int, number: int = 5) -> list[tuple[str, int]]:
    """The largest arrays by where they are made, and their bytes a device if shared out evenly."""
    found: dict[str, int] = {}

    def visit(jaxpr: Any, share: int, path: str) -> None:
        for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
            name = "/".join(filter(None, (path, str(equation.source_info.name_stack))))
            within = 1 if equation.primitive.name == "shard_map" else share
            inner = list(_inner(equation))
            for part in inner:
                visit(part, within, name)
            # A call's results are made inside of it; a scan stacks them.
            if not inner or equation.primitive.name == "scan":
                here = f"{name}/{equation.primitive.name}".strip("/")
                sizes = (_size(x.aval) // share for x in equation.outvars)
                found[here] = max(found.get(here, 0), *sizes, 0)

    visit(jaxpr, devices, "")
    return sorted(found.items(), key=lambda item: -item[1])[:number]


def _size(aval: Any) -> int:
    return math.prod(getattr(aval, "shape", ())) * getattr(aval.dtype, "itemsize", 0)


def _shards(equation: Any) -> int:
    if equation.primitive.name != "shard_map":
        return 1
    return math.prod(equation.params["mesh"].shape.values())


def _inner(equation: Any) -> Iterator[Any]:
    leaves = jax.tree.leaves(dict(equation.params), is_leaf=_is_jaxpr)
    return filter(_is_jaxpr, leaves)


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


def _dot(equation: Any) -> Products:
    (left, _), _ = equation.params["dimension_numbers"]
    contracted = math.prod(equation.invars[0].aval.shape[i] for i in left)
    flops = 2.0 * math.prod(equation.outvars[0].aval.shape) * contracted
    return _priced(equation, flops)


def _convolution(equation: Any) -> Products:
    kernel = equation.invars[1].aval.shape
    numbers = equation.params["dimension_numbers"].rhs_spec
    reduced = math.prod(kernel) // kernel[numbers[0]]  # Of an output: window and input channels.
    return _priced(equation, 2.0 * math.prod(equation.outvars[0].aval.shape) * reduced)


def _priced(equation: Any, flops: float) -> Products:
    narrow = all(x.aval.dtype.itemsize < 4 for x in equation.invars[:2])
    precision = equation.params.get("precision")
    exact = not narrow and jax.lax.Precision.HIGHEST in np.atleast_1d(precision).tolist()
    return Products(flops, flops if exact else 0.0)
