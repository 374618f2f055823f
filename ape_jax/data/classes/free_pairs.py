"""Free pairs: rows of a supervised tower's classifier, each with the names of its class.

A row was trained to have a large product with the features of its class's images: it is a vector in
the space of these features, and with the name of its class a pair that nobody has to collect.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from ape_jax.data.classes import names as class_names
from ape_jax.errors import UserError
from ape_jax.parallel import hosts
from ape_jax.storage import files
from ape_jax.towers import classifier
from ape_jax.towers.classifier import Classifier

KEY = "classifier.names"
_LONGEST = 2000  # Characters of a line.


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FreePairs:
    """Rows of a classifier and the names of their classes.

    Attributes:
      spec: where the names come from.
      rows: of the classes that have a name, f32 [c, d], as the tower's files hold them.
      mean: of the rows of all classes, f32 [d].
      variance: of them, the sum over all dimensions.
      names: distinct names, in order of first appearance.
      row_index: the row of each free pair, i64 [q], ascending.
      name_index: the name of each, i64 [q].
      pooling: of the tower's output, which the rows read.
      own_pooling: the pooling that the tower was made for.
    """

    spec: str
    rows: Float32[np.ndarray, "c d"]
    mean: Float32[np.ndarray, " d"]
    variance: float
    names: tuple[str, ...]
    row_index: Int64[np.ndarray, " q"]
    name_index: Int64[np.ndarray, " q"]
    pooling: str
    own_pooling: str

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.rows)

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of rows and names."""
        total = hashlib.sha256(b"ape_jax free pairs 1 ")
        for array in (self.rows, self.mean, self.row_index, self.name_index):
            total.update(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes())
        for name in self.names:
            encoded = name.encode()
            total.update(len(encoded).to_bytes(8, "little") + encoded)
        return total.hexdigest()


def open_free_pairs(tower: str, names: str = "") -> FreePairs:
    """Reads the classifier of a tower and the names of its classes; says what was found.

    Args:
      tower: as for `towers.classifier.read`.
      names: a text file with the name of a class a line, in the order of the rows; an empty line is
        a class without a name. '' takes the labels in the tower's files.

    Raises:
      UserError: as `towers.classifier.read`; where there are no names, or not one a row.
    """
    found = classifier.read(tower)
    labels = _lines(names, len(found)) if names else found.labels
    if labels is None:
        raise UserError(
            f"config.{KEY}: the files of {tower} do not name the {len(found):,} classes of its "
            "classifier; write a text file with a name a line, in the order of the rows"
        )
    return of(found, labels, names or tower)


def of(found: Classifier, labels: Sequence[str], spec: str) -> FreePairs:
    """The free pairs of a classifier; says how many there are and what is left out.

    Several names in one label ("tench, Tinca tinca") are as many names of one row. Names become
    prose as those of data sets do (`classes.names.as_prose`).

    Example:
      >>> rows = np.eye(3, dtype=np.float32)
      >>> made = Classifier(spec="x", rows=rows, labels=None, pooling="cls", own_pooling="cls")
      >>> pairs = of(made, ["tench, Tinca tinca", "", "great_white_shark"], "x")
      >>> pairs.names, pairs.row_index.tolist()
      (('tench', 'Tinca tinca', 'great white shark'), [0, 0, 1])

    Args:
      found: the classifier.
      labels: of each row, "" for none.
      spec: where the labels come from, for messages.

    Raises:
      UserError: for labels that are no names, or fewer than two.
    """
    parts = [[part.strip() for part in label.split(",")] for label in labels]
    written = [part for some in parts for part in some if part]
    prose = dict(zip(written, class_names.as_prose(written, where=spec, key=KEY)))
    named = [[prose[part] for part in some if part] for some in parts]
    kept = [list(dict.fromkeys(name for name in some if name)) for some in named]
    chosen = [row for row, some in enumerate(kept) if some]
    place: dict[str, int] = {}
    name_index = [place.setdefault(name, len(place)) for row in chosen for name in kept[row]]
    if len(chosen) < 2 or len(place) < 2:
        raise UserError(
            f"config.{KEY}: {spec} names {len(chosen):,} of {len(found):,} classes, by "
            f"{len(place)} different names; free pairs need at least 2 of both"
        )
    counts = [len(kept[row]) for row in chosen]
    lost = {
        "classes without a name": len(kept) - len(chosen),
        "names that their class has already": sum(map(len, named)) - sum(map(len, kept)),
    }
    left = ", ".join(f"{count:,} {what}" for what, count in lost.items() if count)
    hosts.say(
        f"classifier: {sum(counts):,} free pairs, {len(place):,} names ({spec}) of {len(chosen):,} "
        f"classes of {found.spec}; left out: {left or 'nothing'}"
    )
    return FreePairs(
        spec=spec,
        rows=found.rows[chosen],
        mean=found.rows.mean(axis=0, dtype=np.float64).astype(np.float32),
        variance=float(found.rows.var(axis=0, dtype=np.float64).sum()),
        names=tuple(place),
        row_index=np.repeat(np.arange(len(chosen)), counts).astype(np.int64),
        name_index=np.asarray(name_index, np.int64),
        pooling=found.pooling,
        own_pooling=found.own_pooling,
    )


def _lines(path: str, count: int) -> list[str]:
    """The lines of a file, one a row."""
    try:
        text = files.read_text(Path(os.path.expanduser(path)), f"{KEY}: {path}")
    except FileNotFoundError:
        raise UserError(f"config.{KEY}: there is no file {path!r}; correct the path") from None
    lines = [line.strip() for line in text.splitlines()]
    if len(lines) != count:
        raise UserError(
            f"config.{KEY}: {path} has {len(lines):,} lines, and the classifier has {count:,} "
            "rows; write a line a row (an empty one for a class without a name)"
        )
    long = next((n for n, line in enumerate(lines, 1) if len(line) > _LONGEST), None)
    if long is not None:
        raise UserError(f"config.{KEY}: {path}:{long} has more than {_LONGEST:,} characters")
    return lines
