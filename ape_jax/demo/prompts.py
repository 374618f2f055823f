"""ImageNet's class names and the usual prompt templates, read from the wheel of open-clip-torch.

The wheel's `zero_shot_metadata.py` is parsed, never imported: a templates' `lambda c: f"a {c}."`
becomes "a {}.". Origin: https://github.com/mlfoundations/open_clip (MIT), which has them from
https://github.com/openai/CLIP (MIT).
"""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

from ape_jax.demo import cache
from ape_jax.demo.packages import fetch, manifest
from ape_jax.errors import UserError
from ape_jax.storage import files

_VERSION = "1"
_WHEEL = "open-clip-torch"
_MEMBER = "open_clip/zero_shot_metadata.py"
_TEMPLATES = {
    "openai": "OPENAI_IMAGENET_TEMPLATES",
    "open_clip_simple": "SIMPLE_IMAGENET_TEMPLATES",
}
_CLASSNAMES = "IMAGENET_CLASSNAMES"


def imagenet_classnames() -> tuple[str, ...]:
    """Returns the names of ImageNet's 1000 classes, in label order.

    Raises:
      UserError: no network on first use, or a cache that cannot be written.
    """
    return _load()[_CLASSNAMES]


def templates(name: str) -> tuple[str, ...]:
    """Returns prompt templates with "{}" for the class name: `openai` has 80, `open_clip_simple` 7.

    Raises:
      UserError: unknown name, no network on first use, or a cache that cannot be written.
    """
    if name not in _TEMPLATES:
        raise UserError(f"There are no templates {name!r}; write one of {', '.join(_TEMPLATES)}")
    return _load()[_TEMPLATES[name]]


def prepare() -> Path:
    """Makes the cached file unless it is there; returns its directory."""
    return cache.make_once("prompts", _build, lambda path: manifest.matches(path, _VERSION))


def parse_constants(source: str) -> dict[str, tuple[str, ...]]:
    """Reads the module's tuples of strings and of one-argument lambdas that return an f-string.

    Raises:
      UserError: an element is anything else.
    """
    wanted = {_CLASSNAMES, *_TEMPLATES.values()}
    found = {}
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Tuple):
            continue
        for target in statement.targets:
            if isinstance(target, ast.Name) and target.id in wanted:
                found[target.id] = tuple(_text(element) for element in statement.value.elts)
    if found.keys() != wanted:
        raise UserError(f"{_MEMBER} lacks {', '.join(sorted(wanted - found.keys()))}")
    return found


def _text(element: ast.expr) -> str:
    """Returns a literal string, or the template that a lambda stands for."""
    if isinstance(element, ast.Constant) and isinstance(element.value, str):
        return element.value
    if isinstance(element, ast.Lambda) and isinstance(element.body, ast.JoinedStr):
        argument = element.args.args[0].arg
        return "".join(_piece(piece, argument) for piece in element.body.values)
    raise UserError(f"{_MEMBER}:{element.lineno} holds neither a string nor a template")


def _piece(piece: ast.expr, argument: str) -> str:
    if isinstance(piece, ast.Constant) and isinstance(piece.value, str):
        return piece.value.replace("{", "{{").replace("}", "}}")
    if (
        isinstance(piece, ast.FormattedValue)
        and isinstance(piece.value, ast.Name)
        and piece.value.id == argument
    ):
        return "{}"
    raise UserError(f"{_MEMBER}:{piece.lineno} holds more than the class name in braces")


def _build(work: Path) -> None:
    wheel = fetch.fetch_wheel(_WHEEL, work)
    constants = parse_constants(fetch.read_member(wheel, _MEMBER).decode())
    shutil.rmtree(wheel.parent)
    (work / "imagenet.json").write_text(json.dumps(constants, indent=1) + "\n")
    (work / "NOTICE").write_text(
        "ImageNet class names and prompt templates of OpenAI CLIP and OpenCLIP, from the PyPI\n"
        "package open-clip-torch 3.3.0. Licence: MIT. https://github.com/mlfoundations/open_clip\n"
    )
    manifest.write(work, _VERSION)


def _load() -> dict[str, tuple[str, ...]]:
    constants = files.read_json(prepare() / "imagenet.json")
    return {name: tuple(texts) for name, texts in constants.items()}
