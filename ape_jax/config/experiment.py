"""The config of an experiment as the code reads it: typed, frozen, every key checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

import ml_collections

from ape_jax.config import schema
from ape_jax.config.components import CLOSED_FORMS, ClosedFormSpec, component
from ape_jax.config.fields import integer
from ape_jax.config.section import Section, key, section
from ape_jax.config.sections import (
    AugmentConfig,
    CacheConfig,
    ClassifierConfig,
    ClosedConfig,
    DataConfig,
    EvalConfig,
    ImageConfig,
    LatentConfig,
    LossConfig,
    MeshConfig,
    OptimConfig,
    PeftConfig,
    SideConfig,
    StartConfig,
    StructureConfig,
    SubwordsConfig,
    TextConfig,
    TrainConfig,
    UnpairedConfig,
)
from ape_jax.errors import UserError

# Not `Self`, which beartype knows in whole classes only.
C = TypeVar("C", bound="Config")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Section):
    """Every setting of an experiment, as `resolve` (`config.border`) gives it.

    Example:
      >>> config = Config().replace({"train.batch": 64})
      >>> config.train.batch, config.side("image").tune
      (64, 'frozen')
    """

    seed: int = key(
        integer(0, 0, 2**32 - 1),
        "Keys everything random: initial heads, order, augmentation, samples.",
    )
    method: str = key(
        component("train", lambda: CLOSED_FORMS),
        "'train', or a closed form: heads that are solved in seconds, whatever head and train say.",
    )
    start: StartConfig = section(StartConfig)
    closed: ClosedConfig = section(ClosedConfig)
    image: ImageConfig = section(ImageConfig)
    text: TextConfig = section(TextConfig)
    peft: PeftConfig = section(PeftConfig)
    embed: int = key(
        integer(0, 0, 2**16), "Joint width; 0 is the image feature's, which an identity head needs."
    )
    data: DataConfig = section(DataConfig)
    augment: AugmentConfig = section(AugmentConfig)
    cache: CacheConfig = section(CacheConfig)
    latent: LatentConfig = section(LatentConfig)
    train: TrainConfig = section(TrainConfig)
    eval: EvalConfig = section(EvalConfig)
    loss: LossConfig = section(LossConfig)
    structure: StructureConfig = section(StructureConfig)
    subwords: SubwordsConfig = section(SubwordsConfig)
    unpaired: UnpairedConfig = section(UnpairedConfig)
    classifier: ClassifierConfig = section(ClassifierConfig)
    optim: OptimConfig = section(OptimConfig)
    mesh: MeshConfig = section(MeshConfig)

    @property
    def trains(self) -> bool:
        """Whether the run trains by gradient; else its heads are those of `closed_form`."""
        return self.method == "train"

    @property
    def closed_form(self) -> ClosedFormSpec | None:
        """The closed form that the heads are solved by, or that training starts from."""
        name = self.start.method if self.trains else self.method
        return None if name == "none" else CLOSED_FORMS[name]

    def side(self, name: str) -> SideConfig:
        """The section of a modality, "image" or "text"."""
        return {"image": self.image, "text": self.text}[name]

    def replace(self: C, changes: Mapping[str, Any]) -> C:
        """A copy with other values by dotted name, each checked by itself.

        Args:
          changes: such as `{"train.batch": 64}`. That keys go together is for `resolve`.

        Raises:
          UserError: naming a key that is unknown or out of range.
        """
        return schema.checked(type(self), {**schema.values(self), **changes})

    def to_dict(self) -> dict[str, Any]:
        """The values as nested dictionaries."""
        return unflatten(schema.values(self))


_DEEPEST = 16  # Sections in each other; the schema has three.


def flatten(config: Config | ml_collections.ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """`{"train.batch": 512, ...}`; a mapping that is itself a value (`data.eval`) stays whole.

    Raises:
      UserError: for sections that hold themselves, or keys that are no text.
    """
    if isinstance(config, Config):
        return schema.values(config)
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    return _flatten(config, frozenset(schema.keys(Config)), "")


def _flatten(config: Mapping[Any, Any], known: frozenset[str], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    if prefix.count(".") > _DEEPEST:
        raise UserError(
            f"config.{prefix[:40]}...: sections hold each other without end; take them out"
        )
    for name, value in config.items():
        if not isinstance(name, str):
            raise UserError(
                f"config.{prefix}{name!r}: a key is a text, found {type(name).__name__}"
            )
        dotted = prefix + name
        if isinstance(value, Mapping) and dotted not in known:
            flat.update(_flatten(value, known, dotted + "."))
        else:
            flat[dotted] = dict(value) if isinstance(value, Mapping) else value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested form of what `flatten` gives."""
    nested: dict[str, Any] = {}
    for dotted, value in flat.items():
        *groups, name = dotted.split(".")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    return nested


def digest(config: Config) -> str:
    """sha256 of the settings that make a result, as far as they are not the defaults.

    Keys that come with later versions leave it as it is, and so do harmless ones.
    """
    kind = type(config)
    known, harmless = schema.keys(kind), schema.harmless(kind)
    own = {
        name: value
        for name, value in schema.values(config).items()
        if name not in harmless and value != known[name].default
    }
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
