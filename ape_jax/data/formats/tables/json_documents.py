"""JSON documents: where in one the rows are, and the rows as a stream."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ape_jax.data.cells import shorten
from ape_jax.data.columns import CAPTION_NAMES, IMAGE_NAMES, LABEL_NAMES, NEGATIVE_NAMES
from ape_jax.data.formats.tables.json_text import DamagedJson, Doubled, JsonText
from ape_jax.data.formats.tables.text import utf8_chunks
from ape_jax.data.rows import Ask, Broken, Row
from ape_jax.errors import UserError
from ape_jax.images.formats import is_image_name

# Columns stand one behind the other, so that the first row is complete at the end only.
MAX_COLUMNS_BYTES = 128 * 2**20

_KIND = "damaged row"
_WRITE = "write a list of objects, or one object a line"
_IMAGES = frozenset(IMAGE_NAMES)
_NAMES = frozenset({*IMAGE_NAMES, *CAPTION_NAMES, *LABEL_NAMES, *NEGATIVE_NAMES, "id"})


def record_row(at: str, value: Any) -> Row | Broken:
    """Makes a row of a JSON value that should be an object."""
    if isinstance(value, Doubled):
        reason = f"the key {value.key!r} is there twice; write a list, or other keys"
        return Broken(at, _KIND, reason)
    if not isinstance(value, dict):
        reason = f"found {shorten(value)} instead of a JSON object"
        return Broken(at, _KIND, f'{reason}; write {{"image": "cat.png", "captions": ["a cat"]}}')
    return Row(at, value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Member:
    """What a key of a document holds.

    Attributes:
      kind: of the value: "list", "object" or "value".
      first: the first item of a list, the first value in an object, or the value itself.
      key: of the first value in an object.
    """

    kind: str
    first: Any = None
    key: str = ""


@contextlib.contextmanager
def _opened(path: str, ask: Ask) -> Iterator[JsonText]:
    chunks = utf8_chunks(path, ask.say)
    with contextlib.closing(chunks):
        try:
            yield JsonText(chunks)
        except DamagedJson as e:
            raise UserError(f"{path}:{e.line}: {e}") from e


def document_rows(path: str, ask: Ask) -> Iterator[Row | Broken]:
    """Yields the rows of a document.

    Raises:
      UserError: it is damaged, so that what follows cannot be told, or holds no rows.
    """
    with _opened(path, ask) as text:
        start = text.peek()
        if start == "[":
            if ask.part:
                raise UserError(f"{path}: it is a list and has no part {ask.part!r}; leave it out")
            for number, value in enumerate(text.items()):
                yield record_row(f"[{number}]", value)
            _check_end(text, path)
            return
        if start and start != "{":
            raise UserError(f"{path}:{text.line}: this is no JSON object or list; {_WRITE}")
    members, single = _skim(path, ask)
    if members:
        rows = _records(path, ask) if not single else _object_rows(path, ask, members)
        yield from rows


def _check_end(text: JsonText, path: str) -> None:
    if text.peek():
        raise UserError(f"{path}:{text.line}: something stands behind the list; {_WRITE}")


def _skim(path: str, ask: Ask) -> tuple[dict[str, _Member], bool]:
    """The keys of the first object of a document, and whether nothing stands behind it."""
    members: dict[str, _Member] = {}
    with _opened(path, ask) as text:
        if not text.peek():
            return {}, True
        try:
            for key in text.keys():
                members[key] = _skim_member(text)
            return members, not text.peek()
        except DamagedJson:
            # Records that follow each other are read one by one, so that one may be damaged.
            if text.next_object():
                return members or {"": _Member(kind="value")}, False
            raise


def _skim_member(text: JsonText) -> _Member:
    mark = text.peek()
    if mark == "[":
        items = text.items()
        first = next(items, None)
        for _ in items:
            pass
        return _Member(kind="list", first=first)
    if mark != "{":
        return _Member(kind="value", first=text.value())
    found = _Member(kind="object")
    for number, key in enumerate(text.keys()):
        value = text.value()
        found = found if number else _Member(kind="object", first=value, key=key)
    return found


def _records(path: str, ask: Ask) -> Iterator[Row | Broken]:
    """Objects that follow each other, each over several lines."""
    with _opened(path, ask) as text:
        while mark := text.peek():
            if mark == ",":
                text.take(",")
                continue
            line = str(text.line)
            try:
                value = text.value()
            except DamagedJson as e:
                yield Broken(line, _KIND, f"{e}; {_WRITE}")
                if not text.next_object():
                    return
            else:
                yield record_row(line, value)


def _object_rows(path: str, ask: Ask, members: Mapping[str, _Member]) -> Iterator[Row | Broken]:
    """The rows of a document that is one object, by what its keys hold."""
    lists = [k for k, m in members.items() if m.kind == "list" and isinstance(m.first, dict)]
    pandas = {"columns", "data"} <= set(members) and isinstance(members["data"].first, list)
    named = sum(k.lower() in _NAMES for k in members)
    kinds = {m.kind for m in members.values()}
    if pandas or (named > 1 and kinds <= {"list", "object"} and not lists):
        yield from _column_rows(path, ask, pandas=pandas)
    elif _is_record(members, lists) and not ask.part:
        with _opened(path, ask) as text:
            yield record_row("1", text.value())
    elif lists:
        yield from _list_rows(path, ask, lists, members)
    elif all(is_image_name(k) or m.kind == "object" for k, m in members.items()):
        yield from _keyed_rows(path, ask)
    else:
        raise UserError(
            f"{path}: found the keys {shorten(list(members))} and no list of objects; {_WRITE}"
        )


def _is_record(members: Mapping[str, _Member], lists: list[str]) -> bool:
    """Tests whether an object is itself one row and not a container of rows."""
    if any(k.lower() in _IMAGES and k not in lists for k in members):
        return True
    simple = all(m.kind != "object" and not isinstance(m.first, dict) for m in members.values())
    return simple and not any(map(is_image_name, members))


def _list_rows(
    path: str, ask: Ask, lists: list[str], members: Mapping[str, _Member]
) -> Iterator[Row | Broken]:
    """The rows of one list in an object; of several, those that hold images."""
    if ask.part and ask.part not in lists:
        raise UserError(f"{path}: it has no list {ask.part!r}; write one of {shorten(lists)}")
    with_images = [k for k in lists if any(n.lower() in _IMAGES for n in members[k].first)]
    chosen = [ask.part] if ask.part else with_images or lists
    if len(chosen) > 1:
        ask.say(f"{path}: the lists {shorten(chosen)} are all read; write {path}:NAME for one")
    if left := [k for k in lists if k not in chosen and not ask.part]:
        ask.say(f"{path}: the list {chosen[0]!r} is read; left out: {shorten(left)}")
    with _opened(path, ask) as text:
        for key in text.keys():
            if key not in chosen:
                _skim_member(text)
                continue
            for number, value in enumerate(text.items()):
                yield record_row(f"{key}[{number}]", value)


def _keyed_rows(path: str, ask: Ask) -> Iterator[Row | Broken]:
    """Rows under keys that are images, ids, or numbers as pandas' `orient="index"` writes."""
    with _opened(path, ask) as text:
        for number, key in enumerate(text.keys()):
            value = text.value()
            if is_image_name(key):
                value = value if isinstance(value, dict) else {"captions": value}
                if not any(k.lower() in _IMAGES for k in value):
                    value = {"image": key, **value}
            elif isinstance(value, dict) and key != str(number):
                value.setdefault("id", key)
            yield record_row(f"[{json.dumps(key, ensure_ascii=False)}]", value)


def _column_rows(path: str, ask: Ask, *, pandas: bool) -> Iterator[Row | Broken]:
    """Rows of columns: lists, or objects by row as pandas writes; or of `columns` and `data`."""
    columns: dict[str, Any] = {}
    with _opened(path, ask) as text:
        for key in text.keys():
            columns[key] = list(text.items()) if text.peek() == "[" else _members(text)
            if text.size > MAX_COLUMNS_BYTES:
                raise UserError(
                    f"{path}: columns of over {MAX_COLUMNS_BYTES} bytes of JSON do not fit into "
                    'memory; write to_json(path, orient="records", lines=True)'
                )
    if pandas:
        names = columns["columns"]
        for number, cells in enumerate(columns["data"]):
            if not isinstance(cells, list) or len(cells) != len(names):
                yield Broken(f"[{number}]", _KIND, f"there are not {len(names)} cells; {_WRITE}")
            else:
                yield Row(f"[{number}]", dict(zip(map(str, names), cells, strict=True)))
        return
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"{path}: the columns have different lengths, {shorten(sizes)}; {_WRITE}")
    if any(isinstance(column, dict) for column in columns.values()):
        keys = [list(c) if isinstance(c, dict) else None for c in columns.values()]
        if any(k != keys[0] for k in keys):
            raise UserError(f"{path}: the columns have different rows; {_WRITE}")
        columns = {name: list(column.values()) for name, column in columns.items()}
    for number, cells in enumerate(zip(*columns.values(), strict=True)):
        yield Row(f"[{number}]", dict(zip(columns, cells, strict=True)))


def _members(text: JsonText) -> dict[str, Any]:
    return {key: text.value() for key in text.keys()}
