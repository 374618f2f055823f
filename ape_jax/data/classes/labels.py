"""Labels of images: what is one, and the classes that they stand for.

A label is a class name or the index of one. All cells of a CSV file are text, and tables of pandas
make floats of integers, so `3`, `"3"` and `3.0` are the same label, unless a class is called so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ape_jax.data.cells import NULLS, Unusable, shorten
from ape_jax.data.classes.names import as_prose, imagenet_classes, is_wordnet
from ape_jax.errors import UserError

Label = int | str

_INTEGER = re.compile(r"(-?\d{1,11})(\.0*)?", re.ASCII)
_NAMES_FILES = ("classnames.txt", "class_names.txt", "classes.txt", "names.txt", "labels.txt")


def read_label(fields: Mapping[str, Any], column: str) -> Label:
    """The label in a row.

    Example:
      >>> read_label({"label": 3.0}, "label"), read_label({"label": b" tabby "}, "label")
      (3, 'tabby')

    Args:
      fields: cells of the row.
      column: the column of labels.

    Raises:
      Unusable: there is none, or it is no integer and no text.
    """
    value: Any = fields.get(column)
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8-sig")
        except UnicodeDecodeError as e:
            reason = f"the label is not UTF-8 text (byte {e.start}); save it as UTF-8"
            raise Unusable("no label", reason) from e
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.strip() and value.strip() not in NULLS:
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = f"{column!r} is {shorten(value)}" if column in fields else f"there is no {column!r}"
    raise Unusable("no label", f"{found}; write an integer or a class name")


def classes(
    labels: Sequence[Label],
    own: Sequence[str] | None,
    given: Sequence[str] | None,
    where: Sequence[str],
    source: str,
    hint: str = "",
) -> tuple[list[int], tuple[str, ...]]:
    """The class of each label, and the names of the classes.

    Args:
      labels: of all rows.
      own: the data set's own names, of which labels are indices; None where it has none.
      given: the user's names; None takes the data set's own as prose, else the names that occur,
        sorted. WordNet ids become CLIP's names.
      where: file and row of each label, for messages.
      source: what to call the data set in messages.
      hint: phrase on where class names may be.

    Returns:
      The index of the class of each row, and the names.

    Raises:
      UserError: a label that is unknown or out of range, numbers without names, or names that are
        not those of the data set.
    """
    labels = _numbers(labels, given or ())
    if not own and given is None:
        for label, at in zip(labels, where, strict=True):
            if isinstance(label, int):
                raise UserError(
                    f"{at}: the label is the number {label} and there are no class names; give a "
                    f"file of class names{hint}, or write labels by name"
                )
    if not own and not set(labels) <= set(given or ()) and is_wordnet(labels):
        own = sorted({str(label) for label in labels})
        places = {name: i for i, name in enumerate(own)}
        labels = [places[str(label)] for label in labels]
    if own:
        labels = list(labels)
        names = tuple(_own_names(own, given, labels, source))
        index = {} if len(set(names)) < len(names) else {name: i for i, name in enumerate(names)}
    else:
        names = tuple(sorted({str(label) for label in labels})) if given is None else tuple(given)
        index = {name: i for i, name in enumerate(names)}
        if len(index) != len(names) and any(isinstance(label, str) for label in labels):
            twice = next(n for i, n in enumerate(names) if index[n] != i)
            raise UserError(f"{source}: the class name {twice!r} is there twice; write each once")
    return [_index(x, index, names, at) for x, at in zip(labels, where, strict=True)], names


def names_beside(spec: str) -> str:
    """A phrase that names a file of class names beside a source; "" where there is none.

    Example:
      >>> import os, tempfile
      >>> folder = tempfile.mkdtemp()
      >>> _ = open(os.path.join(folder, "classes.txt"), "w").write("cat")
      >>> names_beside(os.path.join(folder, "labels.csv")).replace(folder, "x")
      ' (x/classes.txt lies beside it)'
    """
    path = os.path.expanduser(spec)
    for folder in ((path,) if os.path.isdir(path) else ()) + (os.path.dirname(path),):
        for name in _NAMES_FILES:
            found = os.path.join(folder, name)
            if "\0" not in found and found != path and os.path.isfile(found):
                return f" ({found} lies beside it)"
    return ""


def _numbers(labels: Sequence[Label], names: Sequence[str]) -> Sequence[Label]:
    """Labels as numbers where all of them are, text included, and none is a class name."""
    if set(labels) & set(names):
        return labels
    numbers = [_INTEGER.fullmatch(x) if isinstance(x, str) else x for x in labels]
    if any(number is None for number in numbers):
        return labels
    return [
        number if isinstance(number, int) else int(number[1])
        for number in numbers
        if number is not None
    ]


def _own_names(
    own: Sequence[str], given: Sequence[str] | None, labels: list[Label], source: str
) -> Sequence[str]:
    """Reconciles a data set's own class names with the user's, by name, else index by index."""
    if given is None:
        return as_prose(own, where=source)
    if is_wordnet(own) and set(own) <= set(imagenet := imagenet_classes()):
        places = {name: i for i, name in enumerate(imagenet)}
        if len(given) == len(imagenet) != len(own):  # Part of ImageNet's classes, all of its names.
            labels[:] = [places[own[i]] if _is_index(i, own) else i for i in labels]
            own = list(imagenet)
        own = [imagenet[name] for name in own]
    alike = [_alike(name) for name in own], [_alike(name) for name in given]
    for known, names in ((own, given), alike):
        # Names that stand for two classes each could send a label to the wrong one.
        if set(known) <= set(names) and all(len(set(x)) == len(x) for x in (known, names)):
            indices = {name: index for index, name in enumerate(names)}
            labels[:] = [indices[known[i]] if _is_index(i, own) else i for i in labels]
            return given
    if len(own) != len(given):
        raise UserError(
            f"{source} has {len(own)} classes ({own[0]!r} first) and the class "
            f"names are {len(given)}; write one name a class, in the data set's order"
        )
    _check_order(*alike, source)
    return given


def _is_index(value: Label, names: Sequence[str]) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < len(names)


def _check_order(own: Sequence[str], names: Sequence[str], source: str) -> None:
    """Refuses names that the data set gives to other classes: labels would be taken wrongly."""
    for i, name in enumerate(own):
        if name in names and names[i] != name and names[i] in own:
            raise UserError(
                f"{source}: class {i} is {name!r} in the data set and {names[i]!r} in the class "
                "names; write the names in the data set's order"
            )


def _alike(name: str) -> str:
    """A name without case and without the marks between its words."""
    return "".join(c for c in name.casefold() if c.isalnum())


def _index(label: Label, index: Mapping[str, int], names: Sequence[str], where: str) -> int:
    if isinstance(label, str):
        if label in index:
            return index[label]
        number = _INTEGER.fullmatch(label)
        if number is None:
            raise UserError(f"{where}: {_unknown(label, names)}")
        label = int(number[1])
    if not 0 <= label < len(names):
        raise UserError(
            f"{where}: the label {label} is outside 0 to {len(names) - 1}, the indices of "
            "the class names; count from 0"
        )
    return label


def _unknown(label: str, names: Sequence[str]) -> str:
    count = f"the label {shorten(label)} is not among the {len(names)} class names"
    similar = next((name for name in names if _alike(name) == _alike(label)), None)
    if similar is not None:
        return f"{count}, but {similar!r} is; write one of them like the other"
    return f"{count} (the first is {names[0]!r}); correct one of the two"
