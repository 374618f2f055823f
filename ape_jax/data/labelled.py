"""Images and their classes, for zero-shot evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, SupportsIndex, overload

from ape_jax.data.cells import Unusable
from ape_jax.data.classes.labels import Label, classes, names_beside, read_label
from ape_jax.data.options import Reading
from ape_jax.data.specs import source
from ape_jax.data.table.look import problem_of
from ape_jax.data.table.plain import PlainRow, labelled_rows
from ape_jax.data.table.problems import Problem, Problems
from ape_jax.errors import UserError
from ape_jax.images.decode import ImageRef
from ape_jax.parallel.hosts import say


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
    written = os.fspath(spec)
    rows, labels, problems = _rows(written, key, reading or Reading())
    own = rows[0].fields.get("label_names")
    where = [row.where for row in rows]
    source, hint = f"{key}: {written!r}", names_beside(written)
    indices, names = classes(labels, own, classnames, where, source, hint)
    if own is None and classnames is None and set(map(str, labels)) != set(names):
        say(f"{written}: classes are WordNet ids; their names are CLIP's of ImageNet's classes")
    items = [(row.image, index) for row, index in zip(rows, indices, strict=True)]
    return Labelled(items, names, written, problems)


def _rows(spec: str, key: str, reading: Reading) -> tuple[list[PlainRow], list[Label], Problems]:
    """The rows of a source that can be used, their labels, and what is wrong with the others."""
    rows: list[PlainRow] = []
    labels: list[Label] = []
    problems: list[Problem] = []
    for row in labelled_rows(source(spec, key), key, reading.columns):
        found = row if isinstance(row, Problem) else _label(row)
        if not isinstance(found, Problem) and reading.look and isinstance(row, PlainRow):
            found = problem_of(row.image, len(problems)) or found
        if isinstance(found, Problem):
            problems.append(found)
        elif isinstance(row, PlainRow):
            rows.append(row)
            labels.append(found)
    total = len(rows) + len(problems)
    left = Problems(images=problems, rows=total, pairs=total)
    left.check(reading, key, spec)
    if problems:
        say(f"{key}: {left}; the first: {problems[0]}")
    if not rows:
        raise UserError(f"{key}: {spec!r} holds no records; write at least one")
    return rows, labels, left


def _label(row: PlainRow) -> Label | Problem:
    try:
        return read_label(row.fields, row.columns[0])
    except Unusable as e:
        return Problem(row.where, e.kind, e.reason)
