"""Where a supervised model's classifier lies in its files, and which vector it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """A linear layer behind a pooling, in one way of naming tensors.

    Attributes:
      weight: its tensor, without what may stand before all names.
      is_kernel: whether files hold it [d, C], as flax does; else [C, d], as torch.
      prefixes: what may stand before the name; None for anything that ends in "." before it.
      without: tensors anywhere in a file, without what may stand before their names, with which it
        reads another vector than the pooled one.
    """

    weight: str
    is_kernel: bool = False
    prefixes: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()

    def find(self, names: Collection[str], label: str) -> str | None:
        """Its name in a file, None where it is not there.

        Args:
          names: of the tensors of the file.
          label: the file, for messages.

        Raises:
          UserError: there are several, or the rows read another vector.
        """
        found = sorted(filter(self._is, names))
        _check_single(found, label)
        if not found:
            return None
        beside = sorted(name for name in names if any(_ends(name, x) for x in self.without))
        if beside:
            raise UserError(
                f"{label}: the classifier {found[0]!r} reads what {beside[0]!r} makes of the "
                "tower's output, and not the output: its rows are in another space; write 0 for "
                "classifier.weight, or remove that tensor where it is not in use"
            )
        return found[0]

    def _is(self, name: str) -> bool:
        if self.prefixes is not None:
            return name in {prefix + self.weight for prefix in self.prefixes}
        return _ends(name, self.weight)


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith((f".{end}", f"/{end}"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierRows:
    """The classifiers that files of a family may hold.

    Attributes:
      layers: of which a file holds one.
      pooling: config -> the pooling of the tower's output that they read.
    """

    layers: tuple[Linear, ...]
    pooling: Callable[[Any], str]

    def find(self, shapes: Mapping[str, Any], label: str) -> tuple[Linear, str] | None:
        """The one that a file holds, and its tensor's name; None without. Raises as `Linear`."""
        named = ((layer, layer.find(shapes, label)) for layer in self.layers)
        found = [(layer, name) for layer, name in named if name is not None]
        _check_single([name for _, name in found], label)
        return found[0] if found else None


def _check_single(names: list[str], label: str) -> None:
    if len(names) > 1:
        raise UserError(
            f"{label} holds {len(names)} classifiers, {', '.join(names[:4])}; keep one of them"
        )


# Transformers' classifiers read the tower's output: one behind the tanh pooler is somebody's own.
CLASSIFIER = Linear(weight="classifier.weight", without=("pooler.dense.weight",))
"""Transformers' name."""
TIMM_HEAD = Linear(weight="head.weight")
"""timm's, and that of DeiT's own files."""


def own_pooling(config: Any) -> str:
    """The pooling that the tower was made for."""
    return config.pooling
