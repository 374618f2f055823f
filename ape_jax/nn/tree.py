"""Dataclasses that JAX maps over."""

from __future__ import annotations

from typing import Any

import flax.struct


class Tree(flax.struct.PyTreeNode):
    """Base of frozen dataclasses that are pytrees.

    The types of their fields hold where they are made. JAX also makes them of what `jax.tree.map`,
    `jit` and `eval_shape` put in the arrays' places (shardings, shapes, sums), so the tests'
    type checks pass over the fields; methods are checked like all others.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__init__.__no_type_check__ = True  # pyright: ignore[reportFunctionMemberAccess]
