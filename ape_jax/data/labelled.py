"""Images and their classes, for zero-shot evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex, TypeGuard, overload

from ape_jax.data.cells import decode_text, shorten
from ape_jax.data.class_names import as_prose
from ape_jax.data.options import Reading
from ape_jax.data.specs import source
from ape_jax.data.table.look import problem_of
from ape_jax.data.table.plain import PlainRow, labelled_rows
from ape_jax.data.table.problems import Problem, Problems
from ape_jax.data.table.store import say
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef


class LabelledImage(NamedTuple):
    """An image and the index of its class."""

    image: ImageRef
    label: int


class Labelled(Sequence[LabelledImage]):
    """A sequence of images with their classes.

    Attributes:
      classnames: the name of each label.
      spec: what it was opened from.
      problems: rows of the source that are not among them.
    """

    def __init__(
        self,
        items: Sequence[tuple[ImageRef, int]],
        classnames: Sequence[str],
        spec: str = "",
        problems: Problems | None = None,
    ):
        self._items = tuple(LabelledImage(*item) for item in items)
        count = len(self._items)
        self.problems = Problems(rows=count, pairs=count) if problems is None else problems
        self.classnames = tuple(classnames)
        self.spec = spec

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, i: SupportsIndex) -> LabelledImage: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[LabelledImage, ...]: ...
    def __getitem__(self, i: SupportsIndex | slice) -> LabelledImage | tuple[LabelledImage, ...]:
        return self._items[i]

    def image_ref(self, i: int) -> ImageRef:
        """The reference to one image."""
        return self._items[i].image

    def without(self, problems: Mapping[int, Problem]) -> Labelled:
        """Those whose image can be used; the others are among the problems.

        Args:
          problems: what is wrong with an image, by index.
        """
        kept = [item for i, item in enumerate(self._items) if i not in problems]
        found = self.problems.with_images(problems[i] for i in sorted(problems))
        return Labelled(kept, self.classnames, self.spec, found)

    def __repr__(self) -> str:
        return f"Labelled({self.spec!r}, images={len(self)}, classes={len(self.classnames)})"


def open_labelled(
    spec: str | os.PathLike,
    classnames: Sequence[str] | None = None,
    *,
    key: str = "data.labelled",
    reading: Reading | None = None,
) -> Labelled:
    """Opens a labelled file or data set; nothing is decoded.

    A label is a class name or its index (from 0) in `classnames`. Text that is no class name but
    an integer counts as an index, as all cells of a CSV file are text.

    Args:
      spec: as for `open_pairs`; the column, field or feature is `label`, in a tar `.cls`.
      classnames: None takes the data set's own (TFDS) as prose, else the names that occur, sorted;
        labels in a file must then be names. Two may be equal where all labels are numbers.
      key: the config key to name in messages.
      reading: which columns, and what happens to rows that cannot be used; None stops at them.

    Raises:
      UserError: a label that is unknown, out of range or neither name nor integer; names the file
        and line. Class names that are not those of the data set.
    """
    records, problems = _rows(os.fspath(spec), key, reading or Reading())
    raw = [_raw_label(r) for r in records]
    own = records[0].fields.get("label_names")
    if own:
        classnames = _own_names(own, classnames, raw, f"{key}: {os.fspath(spec)!r}")
    elif classnames is None:
        for record, label in zip(records, raw):
            if isinstance(label, int):
                raise UserError(
                    f"{record.where}: 'label' is the number {label} and there are no class names; "
                    "give a file of class names, or write labels by name"
                )
        classnames = sorted({str(label) for label in raw})
    index = {name: i for i, name in enumerate(classnames)}
    if len(index) != len(classnames) and any(isinstance(label, str) for label in raw):
        twice = next(n for i, n in enumerate(classnames) if index[n] != i)
        raise UserError(f"{key}: the class name {twice!r} is there twice; write each once")
    labels = [_label(r, value, index, len(classnames)) for r, value in zip(records, raw)]
    items = [(r.image, label) for r, label in zip(records, labels)]
    return Labelled(items, classnames, os.fspath(spec), problems)


def _rows(spec: str, key: str, reading: Reading) -> tuple[list[PlainRow], Problems]:
    """The rows of a source whose images and labels are there, and what is wrong with others."""
    rows: list[PlainRow] = []
    problems: list[Problem] = []
    for row in labelled_rows(source(spec, key), key, reading.columns):
        problem = (
            row
            if isinstance(row, Problem)
            else problem_of(row.image, len(problems))
            if reading.look
            else None
        )
        if problem is None and isinstance(row, PlainRow) and reading.on_error == "skip":
            problem = _no_label(row)
        if problem is not None:
            problems.append(problem)
        elif isinstance(row, PlainRow):
            rows.append(row)
    total = len(rows) + len(problems)
    found = Problems(images=problems, rows=total, pairs=total)
    found.check(reading, key, spec)
    if len(found):
        say(f"{key}: {found}; the first: {problems[0]}")
    if not rows:
        raise UserError(f"{key}: {spec!r} holds no records; write at least one")
    return rows, found


def _no_label(row: PlainRow) -> Problem | None:
    try:
        _raw_label(row)
    except UserError as error:
        return Problem(row.where, "no label", str(error).removeprefix(f"{row.where}: "))
    return None


def _own_names(
    own: Sequence[str], classnames: Sequence[str] | None, raw: list[int | str], where: str
) -> Sequence[str]:
    """Reconciles a data set's own class names with the user's, by name, else index by index."""
    if classnames is None:
        return as_prose(own, where=where)
    alike = [_alike(name) for name in own], [_alike(name) for name in classnames]
    for known, given in ((own, classnames), alike):
        # Names that stand for two classes each could send a label to the wrong one.
        if set(known) <= set(given) and all(len(set(x)) == len(x) for x in (known, given)):
            indices = {name: index for index, name in enumerate(given)}
            raw[:] = [indices[known[i]] if _is_index(i, own) else i for i in raw]
            return classnames
    if len(own) != len(classnames):
        raise UserError(
            f"{where} has {len(own)} classes ({own[0]!r} first) and the class "
            f"names are {len(classnames)}; write one name a class, in the data set's order"
        )
    _check_order(*alike, where)
    return classnames


def _is_index(value: int | str, names: Sequence[str]) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < len(names)


def _check_order(own: Sequence[str], names: Sequence[str], where: str) -> None:
    """Refuses names that the data set gives to other classes: labels would be taken wrongly."""
    for i, name in enumerate(own):
        if name in names and names[i] != name and names[i] in own:
            raise UserError(
                f"{where}: class {i} is {name!r} in the data set and {names[i]!r} in the class "
                "names; write the names in the data set's order"
            )


def _alike(name: str) -> str:
    """A name without case and without the marks between its words."""
    return "".join(c for c in name.casefold() if c.isalnum())


def _raw_label(record: PlainRow) -> int | str:
    column = record.columns[0]
    value: Any = record.fields.get(column)
    if isinstance(value, bytes):
        value = decode_text(value, record.where, "label")
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = f"{column!r} is {shorten(value)}"
    found = found if column in record.fields else f"there is no {column!r}"
    raise UserError(f"{record.where}: {found}; write an integer or a class name")


def _label(record: PlainRow, value: int | str, index: dict[str, int], count: int) -> int:
    if isinstance(value, str):
        if value in index:
            return index[value]
        if not (value.isascii() and value.removeprefix("-").isdigit() and len(value) < 12):
            raise UserError(
                f"{record.where}: the label {shorten(value)} is not among the {count} class "
                f"names (the first is {next(iter(index))!r}); correct one of the two"
            )
        value = int(value)
    if not 0 <= value < count:
        raise UserError(
            f"{record.where}: the label {value} is outside 0 to {count - 1}, the indices of "
            "the class names; count from 0"
        )
    return value
