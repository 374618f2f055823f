"""Examples in docstrings run and give what they say."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

import ape_jax

ROOT = Path(ape_jax.__file__).parent
MODULES = [path for path in sorted(ROOT.rglob("*.py")) if ">>> " in path.read_text("utf-8")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    module, source = importlib.import_module(name), path.read_text("utf-8")
    runner, parser = doctest.DocTestRunner(), doctest.DocTestParser()
    # From the source: doctest's own search misses what a decorator wraps.
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            line = getattr(node, "lineno", 1)
            where = f"{name}.{getattr(node, 'name', '')}"
            runner.run(parser.get_doctest(text, vars(module).copy(), where, str(path), line))
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries == source.count(">>> "), "an example stands outside a docstring"
