"""Prompt templates and class names, from a name or from a text file with one a line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ape_jax import arguments
from ape_jax.errors import UserError, path_text
from ape_jax.evaluators import clip_benchmark_tables
from ape_jax.storage import files

PLACE = "{}"
# "simple": this package's own wording, for things in photos and in drawings.
_SIMPLE = (
    "a photo of a {}.",
    "a picture that shows a {}.",
    "this is what the {} looks like.",
    "a {} seen from close by.",
    "a {} in front of a plain background.",
    "a drawing of a {}.",
    "one {} among other things.",
)
_SHIPPED = {"none": (PLACE,), "simple": _SIMPLE}
_OPEN_CLIP = ("openai", "open_clip_simple")
# ImageNet's 1000 names take 14 kB. A larger file than this is not a list of names.
_MAX_BYTES = 16 << 20


def fill(template: str, classname: str) -> str:
    """Puts a class name into a template.

    `str.format` would take braces in either for fields of its own; this takes them literally.

    Example:
      >>> fill("a photo of a {}.", "set {1, 2}")
      'a photo of a set {1, 2}.'

    Args:
      template: a text with one "{}".
      classname: what to put there.

    Returns:
      The prompt.
    """
    return template.replace(PLACE, classname)


def resolve_templates(
    templates: str | Path | Sequence[str], *, key: str = "templates"
) -> tuple[str, ...]:
    """Templates from a name, a file or a list.

    Example:
      >>> resolve_templates("none")
      ('{}',)
      >>> resolve_templates(["a {}", "the {}"])
      ('a {}', 'the {}')

    Args:
      templates: "none" (the bare class name), "simple" (7 general ones), "openai" (the 80 of CLIP),
        "open_clip_simple" (7 of these, as open_clip chose them), "clip_benchmark:NAME[/LANGUAGE]"
        (those of that data set, where clip_benchmark is installed), a UTF-8 text file with one
        template a line, one template, or a list of them; a template has exactly one "{}". A file
        that bears one of these names is written "./none".
      key: the flag or config key to name in messages.

    Returns:
      At least one template, each with exactly one "{}".

    Raises:
      UserError: there is no such name or file, or a line is not a template.
    """
    if not isinstance(templates, str | Path):
        if isinstance(templates, bytes | Mapping) or not hasattr(templates, "__iter__"):
            raise UserError(
                f"{key}: expected a name, a file or a list of texts, found "
                f"{type(templates).__name__}"
            )
        templates = tuple(arguments.text(x, f"{key}, item {i}") for i, x in enumerate(templates, 1))
        if not templates:
            raise UserError(f'{key}: the list is empty; write at least one such as "{PLACE}"')
        return _checked(templates, where=f"{key}, item ")
    templates = arguments.text(path_text(templates, key), key)
    if templates in _SHIPPED:
        return _SHIPPED[str(templates)]
    if templates in _OPEN_CLIP:
        from ape_jax.demo import prompts  # reads a wheel; only for those who ask

        return prompts.templates(str(templates))
    if str(templates).startswith(clip_benchmark_tables.PREFIX):
        return clip_benchmark_tables.read(str(templates), "templates", key=key)
    if PLACE in str(templates) and not os.path.isfile(templates):
        return _checked([str(templates)], where=f"{key}, item ")
    if not os.path.isfile(templates):
        raise UserError(
            f'{key}="{templates}" is neither one of {", ".join([*_SHIPPED, *_OPEN_CLIP])} nor a '
            "file; write one of these names, or the path of a text file with one template a line "
            f'such as "a photo of {PLACE}"'
        )
    return _checked(_lines(templates, what="templates"), where=f"{templates}:")


def _checked(templates: Iterable[str], *, where: str) -> tuple[str, ...]:
    templates = tuple(str(template) for template in templates)
    for number, template in enumerate(templates, 1):
        if template.count(PLACE) != 1:
            raise UserError(
                f'{where}{number}: the template "{template[:80]}" has "{PLACE}" '
                f"{template.count(PLACE)} times; write it exactly once, where the class name goes"
            )
    return templates


def resolve_classnames(name_or_path: str | Path, *, key: str = "classnames") -> tuple[str, ...]:
    """The class names of that name, or those in that file; the first is class 0.

    Args:
      name_or_path: "imagenet" (CLIP's names of its 1000 classes),
        "clip_benchmark:NAME[/LANGUAGE]" (those of that data set, where clip_benchmark is installed)
        or a file as `read_classnames` takes it; one that is called imagenet is written
        "./imagenet".
      key: the flag or config key to name in messages.

    Returns:
      At least one name. In a file no two are equal; of ImageNet's, two classes are "missile".

    Raises:
      UserError: there is no such name or file, or a line is not a name.
    """
    name_or_path = arguments.text(path_text(name_or_path, key), key)
    if name_or_path == "imagenet":
        from ape_jax.demo import prompts  # reads a wheel; only for those who ask

        return prompts.imagenet_classnames()
    if str(name_or_path).startswith(clip_benchmark_tables.PREFIX):
        return clip_benchmark_tables.read(str(name_or_path), "classnames", key=key)
    return read_classnames(name_or_path, key=key)


def read_classnames(path: str | Path, *, key: str = "classnames") -> tuple[str, ...]:
    """Reads class names, one a line; the first line is class 0.

    Args:
      path: a UTF-8 text file. White space around a name is dropped.
      key: the flag or config key to name in messages.

    Returns:
      At least one name, none empty, no two equal.

    Raises:
      UserError: there is no such file, or a name is empty or there twice.
    """
    path = arguments.text(path_text(path, key), key)
    if not os.path.isfile(path):
        raise UserError(
            f'{key}="{path}" is not a file; write the path of a text file with one class name '
            "a line"
        )
    lines = _lines(path, what="class names")
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            raise UserError(
                f"{path}:{number}: the class name is empty; write a name, or delete the line"
            )
        if line in first:
            # Classes with one embedding cannot be told apart: the second would never be predicted.
            raise UserError(
                f'{path}:{number}: the class name "{line[:80]}" stands in line {first[line]} too; '
                "give the two classes different names"
            )
        first[line] = number
    return lines


def _lines(path: str | Path, *, what: str) -> tuple[str, ...]:
    """The lines of a small text file, stripped, without the empty one after the last newline."""
    size = os.path.getsize(path)
    if size > _MAX_BYTES:
        raise UserError(
            f"{path}: the file has {size} bytes, which is no list of {what}; give a text file of "
            f"at most {_MAX_BYTES} bytes with one a line"
        )
    try:
        text = files.read_text(path, most=_MAX_BYTES)
    except FileNotFoundError:
        raise UserError(f"{path}: cannot be read (it is gone); give a readable file") from None
    except UserError as error:
        raise UserError(f"{error}; give the {what} as UTF-8 text, one a line") from None
    # Not splitlines(): it also cuts at separators at which no editor counts a line.
    lines = text.removesuffix("\n").split("\n")
    if lines == [""]:
        raise UserError(f"{path}: the file is empty; write at least one line of {what}")
    return tuple(line.strip() for line in lines)
