"""Heads, losses and closed forms as the config knows them: their declarations and registries.

A component is one file that declares it and one line here, or one `register` from outside the
package. Whatever another room asks of it stands in its declaration, the config keys that it brings
included; rules, planner and exporters ask there and know no component by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from ape_jax.config.fields import Field
from ape_jax.config.registry import Registry

SideName = Literal["image", "text"]
Need = Literal["ids", "token_index"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """Declaration of a head.

    A head on one vector has one maker for both sides (`pooled`); one on tokens has a maker a side.
    A maker is called with an `align.heads.Site` and the head's own settings by name, and returns an
    `align.heads.Head`.

    Attributes:
      name: in `image.head.name` and `text.head.name`.
      title: what tables and docs call it.
      keys: keys of `image.head` and `text.head` that have an effect with it. Heads may share a key,
        which then is the same `Field`.
      pooled: makes the head on one vector an image or a caption, None for a head on tokens.
      image: makes the head on all tokens of an image, None where there is none.
      text: makes the head on the tokens of a caption, None where there is none.
      needs: what it needs of packed captions beside their tokens: vocabulary `ids`, or the
        `token_index` of each caption's tokens.
      keeps_width: whether the joint width is that of its input.
      starts_at_zero: whether it can add nothing at first, as later parts of a sum do.
    """

    name: str
    title: str
    keys: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    pooled: Callable[..., Any] | None = None
    image: Callable[..., Any] | None = None
    text: Callable[..., Any] | None = None
    needs: frozenset[Need] = frozenset()
    keeps_width: bool = False
    starts_at_zero: bool = True

    def stands_on(self, side: SideName) -> bool:
        """Whether it is a head of this side."""
        return self.pooled is not None or getattr(self, side) is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedFormSpec:
    """Declaration of a closed form: a run whose heads are solved, or where training starts from.

    Attributes:
      name: in `method` and `start.method`.
      title: what tables and docs call it.
      solve: called with the features (`align.closed_form.Paired`), `width` (0 to choose it) and its
        own keys by name; returns an `align.closed_form.Solution`.
      image: the head on images that it fills.
      text: the head on captions that it fills.
      keys: keys of `closed` that have an effect with it. Closed forms may share a key.
      takes_width: whether `embed` sets the joint width; else the features do.
      starts: whether training can start from it, which then needs `image` and `text` as heads.
      weighs: whether its directions have weights that training may keep (`start.weights`); `solve`
        then takes `kept`, and with it returns them apart from the heads.
      weighs_pairs: whether it counts pairs by `Paired.weights`, as free pairs need.
      sorted: whether its directions come in order, so that the first ones are embeddings, too.
      settings: the settings of both heads from the solution's record, or None before it is solved.
    """

    name: str
    title: str
    solve: Callable[..., Any]
    image: HeadSpec
    text: HeadSpec
    keys: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    takes_width: bool = False
    starts: bool = True
    weighs: bool = False
    weighs_pairs: bool = False
    sorted: bool = False
    settings: Callable[[Mapping[str, Any] | None], Mapping[str, Any]] = lambda record: {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSpec:
    """Declaration of a contrastive loss.

    Attributes:
      name: in `loss.name`.
      title: what tables and docs call it.
      function: maps unit embeddings zimg and ztxt [B, E], the scale and, with `bias`, the bias to a
        scalar. Takes the keywords ids, text_ids, groups, mesh and impl, as `align.losses.softmax`
        does, and its own keys by name.
      keys: keys of `loss` that have an effect with it alone.
      bias: whether the logits have a bias, trained where the scale is; a key `bias` among `keys` is
        what it starts from.
      hard: whether the function takes the keyword `hard`, negative captions (`losses.hard`).
      uninformed: the loss of a batch of so many pairs for a model that guesses; None where there is
        no such mark.
    """

    name: str
    title: str
    function: Callable[..., Any]
    keys: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    bias: bool = False
    hard: bool = False
    uninformed: Callable[[int], float] | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The keys that the function takes by name."""
        return tuple(key for key in self.keys if key != "bias")


_HEADS, _CLOSED = "ape_jax.align.heads", "ape_jax.align.closed_form"
HEADS: Registry[HeadSpec] = Registry(
    "head",
    {
        "identity": f"{_HEADS}.linear:IDENTITY",
        "linear": f"{_HEADS}.linear:LINEAR",
        "token_mlp": f"{_HEADS}.token_mlp:TOKEN_MLP",
        "pooled_mlp": f"{_HEADS}.pooled_mlp:POOLED_MLP",
        "residual_mlp": f"{_HEADS}.residual_mlp:RESIDUAL_MLP",
        "star_mlp": f"{_HEADS}.star_mlp:STAR_MLP",
        "token_pool_mlp": f"{_HEADS}.token_pool:TOKEN_POOL_MLP",
        "attention_pool": f"{_HEADS}.attention_pool:ATTENTION_POOL",
        "transformer": f"{_HEADS}.transformer:TRANSFORMER",
        "lookup": f"{_HEADS}.lookup:LOOKUP",
    },
)
CLOSED_FORMS: Registry[ClosedFormSpec] = Registry(
    "closed form",
    {
        "ridge": f"{_CLOSED}.ridge_pairs:RIDGE",
        "ridge_text": f"{_CLOSED}.ridge_pairs:RIDGE_TEXT",
        "cca": f"{_CLOSED}.cca:CCA",
        "procrustes": f"{_CLOSED}.procrustes:PROCRUSTES",
        "asif": f"{_CLOSED}.asif:ASIF",
    },
)
LOSSES: Registry[LossSpec] = Registry(
    "loss",
    {
        "softmax": "ape_jax.align.losses.softmax_loss:SOFTMAX",
        "sigmoid": "ape_jax.align.losses.sigmoid_loss:SIGMOID",
    },
)


def heads_of(side: SideName) -> dict[str, HeadSpec]:
    """The heads that a side may have, by name."""
    return {name: head for name, head in HEADS.items() if head.stands_on(side)}


def text_parts(name: str) -> dict[str, HeadSpec]:
    """The heads of a sum such as "linear+lookup", or the one head, by name."""
    return {part: HEADS[part] for part in name.split("+")}


def text_needs(name: str) -> frozenset[Need]:
    """What a text head, or any part of a sum, needs beside tokens: see `HeadSpec.needs`."""
    return frozenset().union(*(head.needs for head in text_parts(name).values()))


@runtime_checkable
class _HasKeys(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def keys(self) -> Mapping[str, Field]: ...


def declared_keys(components: Iterable[_HasKeys]) -> dict[str, Field]:
    """The keys of all components together.

    Raises:
      ValueError: for a key that two of them declare differently.
    """
    found: dict[str, tuple[str, Field]] = {}
    for component in components:
        for key, field in component.keys.items():
            by, known = found.setdefault(key, (component.name, field))
            if (known.default, known.words) != (field.default, field.words):
                raise ValueError(
                    f"{component.name!r} and {by!r} declare the key {key!r} with other defaults or "
                    "bounds; rename one, or share the Field"
                )
    return {key: field for key, (_, field) in found.items()}


def component(default: str, names: Callable[[], Iterable[str]], joint: str = "") -> Field:
    """The name of a component; those that are registered later count, too.

    Args:
      default: a name, or the word for none.
      names: returns the names of the components.
      joint: "" for one name, or what several are joined by.
    """

    def choices() -> list[str]:
        return [default, *(name for name in names() if name != default)]

    def words() -> str:
        several = f", or several joined by {joint!r}" if joint else ""
        return f"one of {', '.join(map(repr, choices()))}{several}"

    def check(value: object) -> bool:
        if not isinstance(value, str):
            return False
        parts = value.split(joint) if joint else [value]
        return set(parts) <= set(choices()) and len(set(parts)) == len(parts)

    return Field(default, words, check)
