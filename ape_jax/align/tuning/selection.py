"""Selection of a tower's trained parameters: every leaf in a group, every mode a set of groups.

The table of groups is explicit; families add rules for parameters of their own (`Family.groups`). A
leaf that no rule covers is a group of its own, and an error in the modes that train by group: a new
kind of tower must not be trained, or left frozen, by accident.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import flax.traverse_util
import numpy as np
from jaxtyping import PyTree

from ape_jax.align.heads.base import batch_norm
from ape_jax.config.tune import Tune
from ape_jax.errors import UserError
from ape_jax.towers.family import FAMILIES
from ape_jax.towers.pooling import OWN
from ape_jax.towers.tower import Tower, slice_blocks

_NORMS = r"(pre_norm|norm|(post_)?norm[12]|(query|key)_norm|norm_\d+)"
_HEAD = r"head/(dense|residual)_\d+"  # sentence-transformers' Dense.
_DENSE = "(attention/(query|key|value|out)|mlp/(gate|fc[12]))"

GROUPS: tuple[tuple[str, str], ...] = (
    (r"appended/.+", "appended block"),
    (r".+/adapter/(down|up)/(kernel|bias)", "adapter"),
    (r".+/lora/(down|up)/kernel", "LoRA"),
    (rf"(.+/)?{_NORMS}/scale", "norm scale"),
    (rf"(.+/)?{_NORMS}/bias", "norm bias"),
    (rf"(blocks|head)/{_DENSE}/bias|{_HEAD}/bias|embed/bias", "bias"),
    (rf"(blocks|head)/{_DENSE}/kernel(_scale)?|{_HEAD}/kernel", "kernel"),  # In int8 with a scale.
    (r"blocks/scale[12]/scale", "layer scale"),
    (r"blocks/attention/relative", "relative position"),
    (r"embed/kernel", "patch embedding"),
    (r"embed/(token|type)", "token embedding"),
    (r"embed/position", "position embedding"),
    (r"embed/(cls|distillation|registers)|head/probe", "class tokens"),
)
"""The first rule that matches the whole name of a leaf in a tower's tree says its group.

"kernel" is that of a `nn.layers.Dense`: LoRA can stand beside it."""

# By the parts of a mode; `append` trains the norm after its block too, see `is_trained`.
_TRAINED = {
    "layernorm": {"norm scale", "norm bias"},
    "bitfit": {"norm bias", "bias"},
    "adapter": {"adapter"},
    "lora": {"LoRA"},
    "append": {"appended block"},
}


# Names at the top of a tower's tree that lie above the frontier of `top:K`.
_ABOVE = ("blocks", "norm", "head")


def group(name: str) -> str:
    """The group of a leaf, `blocks/norm1/scale` -> "norm scale"; its name where no rule covers it.

    Raises:
      ValueError: for a leaf that two families put into different groups.
    """
    return _declared(name, FAMILIES.revision) or name


@functools.cache
def _declared(name: str, revision: int) -> str | None:
    """The group that a rule gives a leaf, of the registry as it is at this revision."""
    for pattern, found in GROUPS:
        if re.fullmatch(pattern, name):
            return found
    rules = (rule for family in FAMILIES.values() for rule in family.groups)
    groups = sorted({found for pattern, found in rules if re.fullmatch(pattern, name)})
    if len(groups) > 1:
        raise ValueError(f"families put the parameter {name!r} into different groups: {groups}")
    return groups[0] if groups else None


def is_trained(name: str, tune: Tune, shared: Collection[str] = ()) -> bool:
    """Tests whether a mode trains a leaf of the part of a tower that it reaches.

    Args:
      name: path of the leaf.
      tune: the mode. With `top`, the part that it reaches is what lies above the frontier.
      shared: names at the top of the tree that the frozen blocks read, too (`Family.shared`).

    Raises:
      UserError: for a leaf of which nothing says whether the mode means it.
    """
    if tune.full:
        return True
    if tune.top:
        return _is_above(name, shared)
    if "append" in tune.parts and name.startswith("norm/"):
        return True
    found = _declared(name, FAMILIES.revision)
    if found is None and tune.parts & {"layernorm", "bitfit"}:
        raise UserError(
            f"'layernorm' and 'bitfit' train parameters by group, and the tower's {name!r} is in "
            "none; write another mode, or declare its group in the tower's family (groups=)"
        )
    return any(found in _TRAINED[part] for part in tune.parts)


def _is_above(name: str, shared: Collection[str]) -> bool:
    top = name.split("/")[0]
    if top not in (*_ABOVE, *shared):
        raise UserError(
            f"'top:K' trains what lies above the frozen blocks, and nothing says whether they read "
            f"the tower's {name!r}; write another mode, or declare it in the tower's family "
            "(shared=)"
        )
    return top not in shared


def used(tower: Tower, params: PyTree, layer: int, pooling: str) -> dict[str, Any]:
    """The parameters that this layer and pooling read: nothing else is trained or kept."""
    final, depth = is_final(tower, layer), blocks_read(tower, layer)
    dropped = {"head"} if pooling not in OWN else set()
    dropped |= set() if final else {"norm"}
    dropped |= set() if depth else {"blocks"}
    kept = {name: value for name, value in params.items() if name not in dropped}
    if 0 < depth < tower.config.depth:
        kept["blocks"] = slice_blocks(kept["blocks"], 0, depth)
    return kept


def blocks_read(tower: Tower, layer: int) -> int:
    """Number of blocks at or below a layer (`Tower.apply`)."""
    depth, joined = tower.config.depth, tower.config.joined
    if layer == -1 and joined and -1 not in joined:
        return max(joined)
    return depth if layer == -1 else layer % (depth + 1)


def is_final(tower: Tower, layer: int) -> bool:
    """Whether what is read has passed the tower's last norm."""
    return layer == -1 and (not tower.config.joined or -1 in tower.config.joined)


def is_dead(name: str, tower: Tower, pooling: str) -> bool:
    """Tests whether a leaf that the forward pass names changes nothing in what is read of it.

    The last norm of CLIP's image tower is for the pooled vector and not for the tokens.
    """
    tokens_only = pooling == "none" and not getattr(tower.config, "norm_tokens", True)
    return tokens_only and name.startswith("norm/")


def flatten(tree: PyTree) -> dict[str, Any]:
    """`{"blocks/norm1/scale": array, ...}`."""
    return flax.traverse_util.flatten_dict(dict(tree), sep="/")


def split(params: PyTree, keep: Callable[[str], bool]) -> tuple[PyTree, PyTree]:
    """The leaves for which `keep(name)` holds, and the rest; both under their own names.

    Trained leaves are float32 whatever the tower is kept in: in bfloat16 most updates would be
    rounded away.
    """
    flat = flatten(params)
    kept = {name: leaf.astype(np.float32, copy=False) for name, leaf in flat.items() if keep(name)}
    rest = {name: leaf for name, leaf in flat.items() if name not in kept}
    unflatten = functools.partial(flax.traverse_util.unflatten_dict, sep="/")
    return unflatten(kept), unflatten(rest)


def merge(*trees: PyTree) -> PyTree:
    """One tree out of trees that have no leaf in common.

    Raises:
      ValueError: for a leaf that two of them have.
    """
    flat: dict[str, Any] = {}
    for tree in trees:
        leaves = flatten(tree)
        if both := flat.keys() & leaves.keys():
            raise ValueError(f"{min(both)} is in both trees")
        flat.update(leaves)
    return flax.traverse_util.unflatten_dict(flat, sep="/")


@dataclasses.dataclass(frozen=True)
class Share:
    """Number of parameters of a group, and of those that are trained."""

    side: str
    group: str
    parameters: int
    trained: int

    def cells(self) -> list[str]:
        """Its row in a table under `SHARE_HEAD`."""
        percent = f"{100 * self.trained / self.parameters:.4g}"
        return [self.side, self.group, f"{self.parameters:,}", f"{self.trained:,}", percent]


SHARE_HEAD = ("side", "parameters", "all", "trained", "%")


def shares(trainable: Mapping[str, PyTree], frozen: Mapping[str, PyTree]) -> list[Share]:
    """The two trees of a model by side and group, in the order of the tables."""
    count: dict[tuple[str, str], list[int]] = {}
    for is_kept, tree in ((True, trainable), (False, frozen)):
        for side, found, size in _sizes(tree):
            entry = count.setdefault((side, found), [0, 0])
            entry[0] += size
            entry[1] += size * is_kept
    return [Share(*key, *count[key]) for key in sorted(count, key=_place)]


def counts(trainable: Mapping[str, PyTree], frozen: Mapping[str, PyTree]) -> tuple[int, int]:
    """Numbers of trained and of frozen parameters of a model."""
    found = shares(trainable, frozen)
    trained = sum(share.trained for share in found)
    return trained, sum(share.parameters for share in found) - trained


def _sizes(tree: Mapping[str, PyTree]) -> Iterator[tuple[str, str, int]]:
    for top, part in batch_norm.parted(tree)[0].items():
        side, _, kind = top.partition("_")
        for name, leaf in flatten(part).items():
            size = math.prod(leaf.shape)
            if kind == "tower":
                yield side, group(name), size
            elif kind == "head":
                yield side, "head", size
            else:
                yield "both" if top == "loss" else "image", top, size


def _place(key: tuple[str, str]) -> tuple[int, int, str]:
    groups = [found for _, found in GROUPS]
    side, found = key
    place = groups.index(found) if found in groups else len(groups)
    return ("image", "text", "both").index(side), place, found
