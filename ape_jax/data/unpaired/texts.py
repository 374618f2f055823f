"""Texts alone: a line each, a column of a table, or the captions of pairs."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Iterator

from ape_jax.config.sections import mixtures
from ape_jax.data import cells, columns, split
from ape_jax.data.cells import Unusable
from ape_jax.data.formats import registry
from ape_jax.data.options import Reading
from ape_jax.data.rows import Ask, Broken, Row
from ape_jax.data.specs import open_pairs, source
from ape_jax.data.table import builder, store
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.storage import files

TAKES = "a .txt with a text a line, a table with a column of texts, or pairs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnpairedTexts:
    """Distinct texts without images, held in memory.

    Attributes:
      spec: what they were opened from.
      texts: the texts, in order of first appearance.
    """

    spec: str
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of the texts, in order."""
        total = hashlib.sha256(b"ape_jax texts 1 ")
        for text in self.texts:
            encoded = text.encode()
            total.update(len(encoded).to_bytes(8, "little") + encoded)
        return total.hexdigest()


def open_texts(
    spec: str, *, key: str = "data.texts", reading: Reading | None = None
) -> UnpairedTexts:
    """Opens texts without images: identical ones once, surrounding white space removed.

    Of pairs only the captions are used, and a line says so.

    Args:
      spec: a `.txt` with a text a line, or any table or pairs that `open_pairs` takes; the column
        of texts is found as captions are, and images need not be there; several with `::` between
        them.
      key: the config key to name in messages.
      reading: which columns, and what happens to rows that cannot be used; None stops at them.

    Raises:
      UserError: for something else, a row that cannot be used, or no text at all.
    """
    reading = reading or Reading()
    mixture = mixtures.parse(spec, key)
    if mixture.weights is not None:
        raise UserError(
            f"{key}: {spec!r} has weights, and unpaired texts have none; leave them out"
        )
    found: dict[str, None] = {}
    for one in mixture.specs:
        kept = _Kept(reading, key, one)
        found.update(dict.fromkeys(kept.of(_texts(os.path.expanduser(one), key, reading))))
    if not found:
        raise UserError(f"{key}: {spec!r} holds no text; write {TAKES}")
    return UnpairedTexts(spec=spec, texts=tuple(found))


class _Kept:
    """Leaves out what cannot be used, where that may be, and says how much."""

    def __init__(self, reading: Reading, key: str, spec: str):
        self._reading, self._key, self._spec = reading, key, spec

    def of(self, texts: Iterator[str | tuple[str, str]]) -> Iterator[str]:
        """The texts; of others the place and the reason come."""
        left, count, first = 0, 0, ""
        for text in texts:
            count += 1
            if isinstance(text, str):
                yield text
                continue
            left, first = left + 1, first or f"{text[0]}: {text[1]}"
            if self._reading.on_error == "error":
                raise UserError(f"{first} (data.on_error='skip' leaves it out)")
        if left > self._reading.max_skipped * count:
            raise UserError(
                f"{self._key}: {left:,} of {count:,} texts of {self._spec!r} cannot be used, more "
                f"than the share of data.max_skipped={self._reading.max_skipped:g}: {first}"
            )
        if left:
            hosts.say(f"{self._key}: left out {left:,} of {count:,} texts; the first: {first}")


def _texts(spec: str, key: str, reading: Reading) -> Iterator[str | tuple[str, str]]:
    if spec.startswith(split.PREFIX):
        pairs = open_pairs(spec, key=key, reading=reading)
        return iter(pairs.caption_table().texts)
    if registry.opens(spec) is not None:
        raise UserError(f"{key}: {spec!r} holds vectors and no texts; write {TAKES}")
    if spec.lower().endswith(".txt") and registry.looked_at(spec) is None:
        return _lines(spec, key)
    return _rows(spec, key, reading)


def _lines(path: str, key: str) -> Iterator[str | tuple[str, str]]:
    """The lines that are not empty."""
    try:
        file = files.opened(path, f"{key}: {path}")
    except FileNotFoundError:
        raise UserError(f"{key}: there is no file {path!r}; correct the path") from None
    with file:
        for number, line in enumerate(file, 1):
            for text in cells.captions(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line):
                if isinstance(text, str):
                    yield text
                elif text is not None and line.strip():
                    yield f"{path}:{number}", text.reason


def _rows(spec: str, key: str, reading: Reading) -> Iterator[str | tuple[str, str]]:
    """The captions of the rows of tables and pairs; images are not looked at."""
    said: dict[str, None] = {}

    def say(line: str) -> None:
        if line not in said:
            said[line] = None
            hosts.say(line)

    ask = Ask(key=key, images=False, columns=reading.columns, say=say)
    for part in source(spec, key):
        try:
            yield from _of_part(part, ask)
        except OSError as e:
            raise UserError(f"{key}: {part.file!r} cannot be read ({e.strerror})") from e


def _of_part(part: store.Part, ask: Ask) -> Iterator[str | tuple[str, str]]:
    read = part.read(ask)
    rows = iter(read.rows)
    block = builder.first_rows(rows)
    names = list(read.columns or builder.names(block))
    chosen = columns.of_texts(names, ask.columns, part.file, named=read.named) if names else ()
    if names:
        listed, rest = ", ".join(map(repr, chosen)), len(set(names) - set(chosen))
        ask.say(f"{ask.key}: {part.file}: texts from {listed}; {rest} other columns are not read")
    for row in itertools.chain(block, rows):
        at = f"{part.file}:{row.at}"
        if isinstance(row, Broken):
            yield at, row.reason
        elif isinstance(row, Row):
            yield from _of_row(row, chosen, at)


def _of_row(row: Row, chosen: tuple[str, ...], at: str) -> Iterator[str | tuple[str, str]]:
    """The texts of a row; of several columns each row gives what it has."""
    found = [name for name in chosen if row.fields.get(name) is not None]
    if not found:
        yield at, f"there is no text in {', '.join(map(repr, chosen))}; write one or remove the row"
    for name in found:
        for text in cells.captions(row.fields[name], name):
            if isinstance(text, Unusable):
                yield at, text.reason
            elif text is not None:
                yield text
