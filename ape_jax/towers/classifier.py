"""Classifiers of supervised image towers: a row in feature space for each class, and its label.

A tower's files hold them beside the tower, which does not read them. Each row was trained to have a
large product with the features of its class's images and small ones with all others, so it is a
vector in the space of these features.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ape_jax.errors import UserError
from ape_jax.towers import layouts
from ape_jax.towers.files import sources
from ape_jax.towers.layout import Found

MOST = 2**20
"""Classes of a classifier."""
_LONGEST = 2000  # Characters of a label; WordNet's and GBIF's have some hundred at most.
_NUMBERED = re.compile(r"LABEL_\d+")  # What transformers writes where there are no names.


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """The linear classifier of a supervised tower.

    Attributes:
      spec: what the tower is read from.
      rows: a vector a class, f32 [C, d].
      labels: what the files call each class, C of them; None where they name none.
      pooling: of the tower's output, which the rows read: `pooled @ rows.T` and a bias are logits.
      own_pooling: the pooling that the tower was made for.
    """

    spec: str
    rows: Float32[np.ndarray, "C d"]
    labels: tuple[str, ...] | None
    pooling: str
    own_pooling: str

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.rows)


def read(spec: str | Path) -> Classifier:
    """Reads the classifier beside an image tower; of the tower nothing but its config is read.

    Labels are `id2label` of transformers' config.json, or `label_names` of timm's. Those of a class
    that transformers has numbered itself, LABEL_0, are no names.

    Args:
      spec: as for `towers.read`, of a tower that JAX runs.

    Raises:
      UserError: the tower has no classifier, or one that reads something else than a pooling of the
        tower's output; its tensor or its labels are damaged.
    """
    path = sources.resolve(str(spec))
    found = layouts.found(path, "image")
    family = found.family
    if family.classifier is None:
        raise UserError(
            f"{spec}: no classifier is read of {family.title}; name a supervised tower, such as "
            "hf:google/vit-base-patch16-224"
        )
    where = family.classifier.find(found.tensors.shapes, found.tensors.label)
    if where is None:
        wanted = " or ".join(repr(layer.weight) for layer in family.classifier.layers)
        raise UserError(
            f"{found.tensors.label} holds no classifier (no tensor {wanted}); name a tower that "
            "was trained with labels and has kept it"
        )
    pooling = family.classifier.pooling(found.config)
    layer, name = where
    rows = _rows(found, name, layer.is_kernel, found.config.pooled_width(pooling))
    return Classifier(
        spec=str(spec),
        rows=rows,
        labels=_labels(path, len(rows)),
        pooling=pooling,
        own_pooling=found.config.pooling,
    )


def _rows(found: Found, name: str, is_kernel: bool, width: int) -> Float32[np.ndarray, "C d"]:
    """The rows of a tensor, once its shape has been found right."""
    label, shape = found.tensors.label, tuple(found.tensors.shapes[name])
    across = shape[::-1] if is_kernel else shape
    if len(shape) != 2 or across[1] != width or not 2 <= across[0] <= MOST:
        raise UserError(
            f"{label}: the classifier {name!r} is {list(shape)}; expected 2 to {MOST:,} classes "
            f"by the {width} numbers of the tower's features"
        )
    rows = np.asarray(found.tensors.read(name)).astype(np.float32)
    rows = np.ascontiguousarray(rows.T if is_kernel else rows)
    if not np.isfinite(rows).all():
        row = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise UserError(f"{label}: row {row} of the classifier {name!r} is not finite")
    return rows


def _labels(path: Path, count: int) -> tuple[str, ...] | None:
    """The label of each class, by the config.json beside the tensors; None without names."""
    file = path / "config.json"
    config = sources.optional_json(file) if path.is_dir() else {}
    pretrained = config.get("pretrained_cfg")
    listed = config.get("label_names")
    if listed is None and isinstance(pretrained, Mapping):
        listed = pretrained.get("label_names")
    if listed is not None:
        return _checked(listed, "label_names", count, file)
    by_id = config.get("id2label")
    if by_id is None:
        return None
    if not isinstance(by_id, Mapping):
        raise UserError(f"{file}: 'id2label' is {type(by_id).__name__}; write an object")
    wanted = [str(i) for i in range(count)]
    if missing := [key for key in wanted if key not in by_id]:
        raise UserError(
            f"{file}: 'id2label' lacks {missing[0]!r}; the classifier has {count} rows and needs "
            f"labels '0' to '{count - 1}'"
        )
    labels = _checked([by_id[key] for key in wanted], "id2label", count, file, len(by_id))
    return None if all(map(_NUMBERED.fullmatch, labels)) else labels


def _checked(
    labels: Any, key: str, count: int, file: Path, written: int | None = None
) -> tuple[str, ...]:
    """As many labels as there are rows, all texts."""
    if not isinstance(labels, list | tuple):
        raise UserError(f"{file}: {key!r} is {type(labels).__name__}; write a list of names")
    if len(labels) != count or written not in (None, count):
        raise UserError(
            f"{file}: {key!r} names {written or len(labels)} classes, and the classifier has "
            f"{count} rows; write one name a row"
        )
    for number, label in enumerate(labels):
        if not isinstance(label, str) or len(label) > _LONGEST:
            raise UserError(
                f"{file}: {key!r} of class {number} is no text of at most {_LONGEST} characters"
            )
    return tuple(labels)
