"""What a browser may ask of the page's functions: their numbers, and the types of their arguments.

Gradio passes on what it is sent, and prints a traceback for what a function does not take.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ape_jax.errors import UserError
from ape_jax.pages.served.kept import Kept
from ape_jax.storage.files import json_kind, parse_json

SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_CHOICE = 5000

Argument = Callable[[Any], Any]
"""Takes the value of an argument as JSON has it; gives it, or raises a `UserError`."""


@dataclasses.dataclass(frozen=True)
class Questions:
    """The functions of a page.

    Attributes:
      arguments: of each function, by its number.
    """

    arguments: Mapping[int, Sequence[Argument]]

    def checked(self, body: bytes) -> dict[str, Any]:
        """What Gradio is told of a question, made of checked values only.

        Args:
          body: the request's, JSON.

        Raises:
          UserError: it is not JSON, names no function, or has other arguments than it takes.
        """
        asked = parse_json(body, "the request")
        session = asked.get("session_hash")
        if not isinstance(session, str) or not SESSION.fullmatch(session):
            raise UserError("the request: session_hash is no name of a session")
        number = asked.get("fn_index")
        if number is None or not _is_whole(number) or number not in self.arguments:
            raise UserError("the request: fn_index names no function of this page")
        wanted, values = self.arguments[number], asked.get("data")
        if not isinstance(values, list) or len(values) != len(wanted):
            found = len(values) if isinstance(values, list) else json_kind(values)
            raise UserError(f"the request: data must be a list of {len(wanted)}, found {found}")
        trigger = asked.get("trigger_id")
        return {
            "fn_index": number,
            "session_hash": session,
            "trigger_id": trigger if _is_whole(trigger) else None,
            "data": [check(value) for check, value in zip(wanted, values)],
        }


def text(value: Any) -> str:
    """A text; nothing is the empty one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"the request: a text is expected, found {json_kind(value)}")
    return value


def choice(value: Any) -> str | None:
    """One of a list, whose length other visitors can change."""
    if value is None or (isinstance(value, str) and len(value) <= _LONGEST_CHOICE):
        return value
    raise UserError(f"the request: a name of the list is expected, found {json_kind(value)}")


def whole(least: int, most: int) -> Argument:
    """A whole number in a range."""

    def check(value: Any) -> int:
        number = not isinstance(value, bool) and isinstance(value, int | float)
        if not number or not least <= value <= most or value != int(value):
            raise UserError(f"the request: a number from {least} to {most} is expected")
        return int(value)

    return check


def file(kept: Kept) -> Argument:
    """A file that was uploaded before."""

    def check(value: Any) -> dict[str, Any] | None:
        if value is None:
            return None
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str) or (found := kept.file(path)) is None:
            raise UserError("the request: there is no such file here; drop the image again")
        return {"path": str(found), "orig_name": found.name, "meta": {"_type": "gradio.FileData"}}

    return check


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
