"""Notices of a run: said in a line each, once, and kept in `notices.jsonl` of the work directory.

A notice never ends a run. One that was said before a run was killed is not said again.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable

from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.storage import atomic, disk, files

FILE = "notices.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that a run has noticed.

    Attributes:
      step: after so many steps; 0 before the first.
      kind: what it is, of which there is one notice a run.
      message: a sentence with the figure, the likely cause and what to change.
    """

    step: int
    kind: str
    message: str


class Notices:
    """The notices of one run.

    Args:
      path: the work directory.
      step: where this start takes up the run; later notices of an earlier start are dropped, since
        these steps are trained again.
    """

    def __init__(self, path: pathlib.Path, step: int = 0):
        self._file = path / FILE
        # What is noticed before the first step is looked for by every start.
        self._found = [notice for notice in read(path) if 0 < notice.step <= step]

    @property
    def found(self) -> list[Notice]:
        """All of them, in the order of their steps."""
        return sorted(self._found, key=lambda notice: notice.step)

    def add(self, notices: Iterable[Notice], say: Callable[[str], None] = hosts.say) -> None:
        """Says and keeps the notices of kinds that there is none of yet.

        Args:
          notices: what was noticed.
          say: takes a line for the user.

        Raises:
          UserError: the file cannot be written.
        """
        kinds = {notice.kind for notice in self._found}
        new = [notice for notice in notices if notice.kind not in kinds]
        for notice in new:
            say(f"notice: {notice.message}")
        self._found += new
        if new:
            self._write()

    def _write(self) -> None:
        if hosts.is_first():
            lines = [json.dumps(dataclasses.asdict(notice)) + "\n" for notice in self.found]
            with disk.write_errors(f"--workdir: {self._file}"):
                atomic.write_text(self._file, "".join(lines))


def read(path: pathlib.Path) -> list[Notice]:
    """The notices that a work directory holds; lines that are damaged are left out."""
    try:
        text = files.read_text(path / FILE)
    except (FileNotFoundError, UserError):
        return []
    found = []
    for line in text.splitlines():
        try:
            entry = files.parse_json(line, FILE)
            found.append(
                Notice(step=int(entry["step"]), kind=entry["kind"], message=entry["message"])
            )
        except (UserError, KeyError, TypeError, ValueError):
            continue
    return found
