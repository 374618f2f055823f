"""Where a supervised model's classifier lies in its files, and which vector it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ape_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """A linear layer behind a pooling, in one way of naming tensors.

    Attributes:
      weight: its tensor, without what may stand before all names.
      is_kernel: whether files hold it [d, C], as flax does; else [C, d], as torch.
      prefixes: what may stand before the name; None for anything that ends in "." before it.
      without: tensors beside it, in files in which it reads another vector than the pooled one.
    """

    weight: str
    is_kernel: bool = False
    prefixes: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()

    def find(self, names: Iterable[str], label: str) -> str | None:
        """Its name in a file, None where it is not there.

        Args:
          names: of the tensors of the file.
          label: the file, for messages.

        Raises:
          UserError: there are several, or the rows read another vector.
        """
        found = sorted(filter(self._is, names))
        if len(found) > 1:
            raise UserError(
                f"{label} holds {len(found)} classifiers, {', '.join(found[:4])}; keep one of them"
            )
        if not found:
            return None
        front = found[0].removesuffix(self.weight)
        beside = [front + name for name in self.without if front + name in names]
        if beside:
            raise UserError(
                f"{label}: the classifier {found[0]!r} reads what {beside[0]!r} makes of the "
                "tower's output, and not the output; its rows are in another space"
            )
        return found[0]

    def _is(self, name: str) -> bool:
        if self.prefixes is not None:
            return name in {prefix + self.weight for prefix in self.prefixes}
        return name == self.weight or name.endswith(f".{self.weight}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierRows:
    """The classifiers that files of a family may hold.

    Attributes:
      layers: in the order in which they are looked for.
      pooling: config -> the pooling of the tower's output that they read.
    """

    layers: tuple[Linear, ...]
    pooling: Callable[[Any], str]

    def find(self, shapes: Mapping[str, Any], label: str) -> tuple[Linear, str] | None:
        """The first that a file holds, and its tensor's name; None without. Raises as `find`."""
        named = ((layer, layer.find(shapes, label)) for layer in self.layers)
        return next(((layer, name) for layer, name in named if name is not None), None)


CLASSIFIER = Linear(weight="classifier.weight")
"""Transformers' name."""
TIMM_HEAD = Linear(weight="head.weight")
"""timm's, and that of DeiT's own files."""


def own_pooling(config: Any) -> str:
    """The pooling that the tower was made for."""
    return config.pooling
