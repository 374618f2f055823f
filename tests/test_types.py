"""The type checks that all tests run under are on, and pass over no annotation without a word."""

import ast
import functools
import importlib
import inspect
import pathlib
import pkgutil
import typing
from unittest import mock

import jaxtyping
import numpy as np
import pytest

import ape_jax
from ape_jax.evaluators import retrieval

# Run by themselves, in processes that know nothing of this package.
SCRIPTS = ("modeling_ape", "processing_ape", "checksums_ape", "encode_", "convert_onnx", "__main__")


def modules():
    """The modules of all rooms; not the commands, which define the same flags."""
    for found in pkgutil.walk_packages(ape_jax.__path__, "ape_jax."):
        if found.name.count(".") > 1 and not found.name.rpartition(".")[2].startswith(SCRIPTS):
            yield importlib.import_module(found.name)


def functions(owner, module):
    """The functions of a module and of its classes, by name."""
    for name, value in vars(owner).items():
        if isinstance(value, property):
            value = value.fget
        elif isinstance(value, functools.cached_property):
            value = value.func
        elif isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value) and value is not owner:
            yield from ((f"{name}.{inner}", found) for inner, found in functions(value, module))
        elif inspect.isfunction(value) and not name.startswith("__"):
            yield name, value


def guarded(module):
    """Names that a module imports for type checkers alone: of packages that are slow to import."""
    tree = ast.parse(pathlib.Path(module.__file__).read_text())
    blocks = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imports = [alias for block in blocks for node in block.body for alias in node.names]
    return {alias.asname or alias.name.partition(".")[0] for alias in imports}


def test_every_annotation_can_be_read():
    unread = []
    for module in modules():
        names = {name: mock.MagicMock() for name in guarded(module)}
        for name, function in functions(module, module):
            try:
                typing.get_type_hints(inspect.unwrap(function), localns=names)
            except (NameError, AttributeError, TypeError) as error:
                unread.append(f"{module.__name__}.{name}: {error}")
    assert not unread, "\n".join(unread)


def test_a_wrong_shape_is_an_error_before_the_function_runs():
    eye = np.eye(3, dtype=np.float32)
    with pytest.raises(jaxtyping.TypeCheckError, match="ztxt"):
        retrieval.retrieval_metrics(eye, eye[:, :2], np.arange(3))
