"""What was read of a tower's files, what was not, and what was assumed for want of a file.

A key of a config.json that is passed over in silence can make a tower wrong without a word. So a
JSON object of a tower remembers which of its keys were asked for (`Asked`); what was neither asked
for nor is known to be irrelevant (`irrelevant.py`) is named in one line when the tower is read.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ape_jax.parallel import hosts
from ape_jax.towers.files import irrelevant


@dataclasses.dataclass(eq=False)
class Seen:
    """Keys of an object that were asked for, and those of the objects in it.

    Attributes:
      keys: of the object itself.
      below: of the objects that are its values.
    """

    keys: set[str] = dataclasses.field(default_factory=set)
    below: dict[str, Seen] = dataclasses.field(default_factory=dict)


class Asked(dict[str, Any]):
    """A JSON object that remembers which of its keys were asked for, one by one.

    To iterate over it asks for nothing, so a copy of it is a plain dict that nobody watches.

    Attributes:
      seen: what was asked for.
    """

    def __init__(self, values: Mapping[str, Any], seen: Seen | None = None):
        super().__init__(values)
        self.seen = Seen() if seen is None else seen

    def get(self, key: str, default: Any = None) -> Any:
        """As dict's."""
        return self[key] if key in self else default

    def __getitem__(self, key: str) -> Any:
        self.seen.keys.add(key)
        value = super().__getitem__(key)
        if isinstance(value, dict) and not isinstance(value, Asked):
            value = Asked(value, self.seen.below.setdefault(key, Seen()))
            self[key] = value
        return value

    def __contains__(self, key: object) -> bool:
        self.seen.keys.add(str(key))
        return super().__contains__(key)

    def unread(self, file: str = "config.json") -> list[str]:
        """The keys that nobody asked for and that are not known to be irrelevant.

        Args:
          file: the name of its file, whose table of irrelevant keys applies.
        """
        return _unread(self, self.seen, file)


def _unread(values: Mapping[str, Any], seen: Seen, file: str) -> list[str]:
    found = []
    for key, value in values.items():
        below = seen.below.get(key)
        if key in seen.keys:
            chosen = key in irrelevant.CHOICES.get(file, ())
            inside = _unread(value, below, file) if below and below.keys and not chosen else []
            found += [f"{key}.{name}" for name in inside]
        elif not irrelevant.is_irrelevant(file, key, value):
            found.append(key)
    return found


class Reading:
    """What there is to say about the files of one tower.

    Attributes:
      label: the tower, for messages.
    """

    def __init__(self, label: str):
        self.label = label
        self._files: dict[Path, tuple[dict[str, Any], Seen]] = {}
        self._whole: set[Path] = set()
        self._assumed: list[str] = []

    def asked(self, path: Path, values: dict[str, Any]) -> Asked:
        """The content of a file; asking again for the same file adds to what was asked for."""
        _, seen = self._files.setdefault(path, (values, Seen()))
        return Asked(values, seen)

    def lines(self) -> tuple[str, ...]:
        """Sentences on what was assumed, and one on the keys that were not read."""
        unread = []
        for path, (values, seen) in self._files.items():
            names = [] if path in self._whole else _unread(values, seen, path.name)
            where = path.name if path.name != "config.json" else _short(path)
            unread += [f"{where}: {', '.join(sorted(names))}"] if names else []
        not_read = [f"not read: {'; '.join(unread)}"] if unread else []
        return tuple(f"{self.label}: {line}" for line in (*self._assumed, *not_read))

    def assume(self, sentence: str) -> None:
        """Adds what was assumed."""
        if sentence not in self._assumed:
            self._assumed.append(sentence)

    def whole(self, path: Path) -> None:
        """Notes that another library has read all of a file."""
        self._whole.add(path)


def _short(path: Path) -> str:
    """`config.json`, or with its folder where that belongs to a module (`1_Pooling`)."""
    return f"{path.parent.name}/{path.name}" if path.parent.name[:1].isdigit() else path.name


_CURRENT: contextvars.ContextVar[Reading | None] = contextvars.ContextVar("reading", default=None)
_said: set[str] = set()


@contextlib.contextmanager
def tower(label: str) -> Iterator[Reading]:
    """Watches over the files that are read in it; says on stderr, once a process, what it found.

    Args:
      label: the tower, for messages.

    Yields:
      What there is to say so far. Nothing is said where an error leaves the block.
    """
    reading = Reading(label)
    token = _CURRENT.set(reading)
    try:
        yield reading
    finally:
        _CURRENT.reset(token)
    for line in reading.lines():
        say_once(line)


def say_once(line: str) -> None:
    """Says a line on stderr, once a process."""
    if line not in _said and hosts.is_first():
        _said.add(line)
        hosts.say(line)


def asked(path: Path, values: dict[str, Any]) -> Asked:
    """The content of a file of the tower that is being read, watched."""
    reading = _CURRENT.get()
    return Asked(values) if reading is None else reading.asked(path, values)


def assumed(sentence: str) -> None:
    """Says with the tower that is being read what was assumed for want of a file or key."""
    reading = _CURRENT.get()
    if reading is not None:
        reading.assume(sentence)


def whole(path: Path) -> None:
    """Notes that another library reads all of a file, whatever we ask of it."""
    reading = _CURRENT.get()
    if reading is not None:
        reading.whole(path)
