"""The class names and templates that clip_benchmark has for its data sets, where it is installed.

Its tables are read from its installed files, without importing it, and are not part of this
package. Origin: https://github.com/LAION-AI/CLIP_benchmark (MIT).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from ape_jax.errors import UserError, install
from ape_jax.storage import files

PREFIX = "clip_benchmark:"
_FILES = {"classnames": "classnames", "templates": "zeroshot_classification_templates"}
_PLACE = "{c}"


def read(spec: str, kind: Literal["classnames", "templates"], *, key: str) -> tuple[str, ...]:
    """The names or templates of one data set; templates with "{}" for the class.

    Args:
      spec: `clip_benchmark:NAME[/LANGUAGE]`, such as "clip_benchmark:pets" or
        "clip_benchmark:imagenet1k/jp"; English where no language is named.
      kind: which of the two.
      key: the flag to name in messages.

    Raises:
      UserError: clip_benchmark is not installed, or has no such table; says what it has.
    """
    name, _, language = spec.removeprefix(PREFIX).partition("/")
    language = language or "en"
    folder = _folder(spec, key)
    suffix = f"_{_FILES[kind]}.json"
    known = sorted(path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}"))
    if language not in known:
        raise UserError(
            f'{key}="{spec}": clip_benchmark has no {kind} in {language!r}; write '
            f"{PREFIX}NAME/LANGUAGE with one of {', '.join(known)}"
        )
    tables = files.read_json(folder / f"{language}{suffix}")
    if name not in tables:
        raise UserError(
            f'{key}="{spec}": clip_benchmark has no {kind} for {name!r}; write '
            f"one of {', '.join(sorted(tables))}, or the path of a file"
        )
    texts = tuple(tables[name])
    if kind == "classnames":
        return texts
    if bad := [text for text in texts if text.count("{") != 1 or _PLACE not in text]:
        raise UserError(
            f'{key}="{spec}": the template {bad[0]!r} of clip_benchmark does not have "{_PLACE}" '
            "once, where the class name goes; write the path of a file"
        )
    return tuple(text.replace(_PLACE, "{}") for text in texts)


def _folder(spec: str, key: str) -> Path:
    found = importlib.util.find_spec("clip_benchmark")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f'{key}="{spec}": clip_benchmark is not installed; run {install("judges")}, '
            "or write the path of a file"
        )
    return Path(next(iter(found.submodule_search_locations))) / "datasets"
