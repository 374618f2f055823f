"""Shows the examples of docstrings as code (an extension of griffe, which reads them)."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^(Example:\n)((?: {2,}.*\n?|\n)+)", re.MULTILINE)


class Examples(griffe.Extension):
    """Fences what stands under `Example:`, which Markdown would take for a paragraph."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of a module, class or function."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(match: re.Match[str]) -> str:
    code = textwrap.dedent(match[2]).strip("\n")
    language = "pycon" if code.startswith(">>>") else "python"
    block = f"```{language}\n{code}\n```"
    return f"{match[1]}{textwrap.indent(block, '  ')}\n\n"
