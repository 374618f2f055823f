"""The sections of a config: every key with its type, default, check and words, in one place.

A section is a frozen dataclass; `section.key` holds what makes a value of a key right. `Config`
(`config.experiment`) puts the sections together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

from ape_jax.config import placement, tune
from ape_jax.config.components import CLOSED_FORMS, LOSSES, component, declared_keys, heads_of
from ape_jax.config.fields import (
    Field,
    choice,
    flag,
    integer,
    is_colour,
    is_crop,
    is_multipliers,
    is_randaugment,
    is_specs,
    is_words,
    number,
    regex,
    string,
)
from ape_jax.config.section import OpenSection, Section, key, section

Dtype = Literal["bfloat16", "float32"]
ParamDtype = Literal["float32", "bfloat16", "int8"]
OnError = Literal["error", "skip"]
CachePlace = Literal["auto", "device", "host"]
Remat = Literal["none", "blocks", "all_but_products"]
Same = Literal["image", "image+caption", "none"]
LossImpl = Literal["auto", "dense", "ring"]
Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig(OpenSection):
    """One head. Each key but the name is declared by heads, and has an effect with those only."""

    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageHeadConfig(HeadConfig):
    """The head on image features."""

    name: str = key(component("identity", lambda: heads_of("image")))

    @classmethod
    def declarations(cls) -> Mapping[str, Field]:
        """The keys of heads on images."""
        return declared_keys(heads_of("image").values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextHeadConfig(HeadConfig):
    """The head on caption features, or the sum of several, "linear+token_mlp"."""

    name: str = key(component("token_mlp", lambda: heads_of("text"), joint="+"))

    @classmethod
    def declarations(cls) -> Mapping[str, Field]:
        """The keys of heads on captions."""
        return declared_keys(heads_of("text").values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideConfig(Section):
    """One modality: its tower, its tuning mode and its head."""

    tower: str = key(string(expects="a tower: hf:org/name, a directory, a .npz or demo:NAME"))
    tune: str = key(Field("frozen", tune.EXPECTS, tune.is_tune))
    layer: int = key(integer(-1, -1, 1000))
    dtype: Dtype = key(choice(*get_args(Dtype)))
    # What parameters are kept in; 'int8' is for the blocks' kernels of a frozen tower.
    param_dtype: ParamDtype = key(choice(*get_args(ParamDtype)))
    head: HeadConfig = section(HeadConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig(SideConfig):
    """The image side; `standardize` is the one fixed affine map that a frozen tower may have."""

    head: ImageHeadConfig = section(ImageHeadConfig)
    # 'none' keeps all tokens, for a head that pools for itself.
    pooling: str = key(choice("own", "cls", "mean", "cls+mean", "map", "none"))
    size: int = key(integer(0, 0, 4096))  # 0: the tower's own, as for `max_length`.
    standardize: bool = key(flag(True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(SideConfig):
    """The text side, and the head on its tokens."""

    head: TextHeadConfig = section(TextHeadConfig)
    pooling: str = key(choice("mean", "cls", "last"))
    max_length: int = key(integer(0, 0, 2**16))
    prefix: str = key(string("own", "a string, or 'own' for the tower's"))


def _starts() -> list[str]:
    return [name for name, form in CLOSED_FORMS.items() if form.starts]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartConfig(Section):
    """Where trained heads start from."""

    method: str = key(component("none", _starts))
    # A finished two-tower model whose heads, scale and bias training starts from.
    model: str = key(string("", "a finished two-tower model, or '' for fresh heads"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedConfig(OpenSection):
    """Closed forms, which declare the keys: one left at its default is chosen by held-out pairs.

    So is `embed`, the width; a start then has all of it.
    """

    @classmethod
    def declarations(cls) -> Mapping[str, Field]:
        """The keys of closed forms."""
        return declared_keys(CLOSED_FORMS.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeftConfig(Section):
    """Sizes of modes with 'adapter' or 'lora'.

    `lora_targets` are the dense layers that get LoRA, by their paths in the tower's blocks
    ("blocks/attention/query", "blocks/mlp/fc1").
    """

    adapter_reduction: int = key(integer(4, 1, 4096))
    lora_rank: int = key(integer(8, 1, 4096))
    lora_alpha: float = key(number(16.0, 0.0, 1e6))
    lora_targets: str = key(regex(".*/(query|value)"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The pairs, and how their images are read."""

    pairs: str = key(string(expects="pairs: a file, tfds:NAME:SPLIT or demo:NAME:SPLIT"))
    # So many of the training pairs, a random sample keyed by `seed`; a smaller one is part of it.
    sample: int = key(integer(0, 0))
    eval: Mapping[str, str] = key(
        Field({}, "a mapping from names to pairs, {'test': 'pairs.jsonl'}", is_specs)
    )
    on_error: OnError = key(choice(*get_args(OnError)))
    background: Colour = key(Field((255, 255, 255), "three integers from 0 to 255", is_colour))
    workers: int = key(integer(2, 1, 256), harmless=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    """Augmentations of training pairs; () turns one off."""

    crop: tuple[float, ...] = key(Field((), "() or two areas, 0 < low <= high <= 1", is_crop))
    flip: bool = key(flag(False))
    randaugment: tuple[float, ...] = key(
        Field((), "() or (operations, magnitude up to 10)", is_randaugment)
    )
    # Further training captions, with words left out: so many of each, and the rate.
    words: tuple[float, ...] = key(
        Field((), "() or (variants from 1 to 64, rate between 0 and 1)", is_words)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig(Section):
    """Features of frozen towers: what is encoded once, and where it is kept."""

    # How often a frozen image is encoded: 0 anew in every step, 1 clean, K augmented views.
    views: int = key(integer(1, 0, 1000))
    # Keys the views, apart from the run's `seed`, so that runs share them.
    seed: int = key(integer(0, 0, 2**32 - 1))
    # Whether captions of a frozen text tower are encoded once, or anew in every step.
    text: bool = key(flag(True))
    dtype: Dtype = key(choice(*get_args(Dtype)))
    # '' is `features` in the cache folder, 'none' keeps features in memory only.
    dir: str = key(
        string("", "a directory, '' for the cache folder's own, or 'none'"), harmless=True
    )
    missing: Literal["encode", "error"] = key(choice("encode", "error"), harmless=True)
    # Where features live in training; 'auto' is the device where they fit.
    place: CachePlace = key(choice(*get_args(CachePlace)), harmless=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentConfig(Section):
    """Augmentation of cached features: Beta's alpha of the mixup, standard deviation, rate."""

    mixup: float = key(number(0.0, 0.0, 100.0))
    noise: float = key(number(0.0, 0.0, 100.0))
    dropout: float = key(number(0.0, 0.0, 0.99))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """The length of training, its batches, and what is written when."""

    batch: int = key(integer(512, 2, 2**26))
    # Pairs whose activations are kept at a time (GradCache): the same gradient. 0: the whole batch.
    micro_batch: int = key(integer(0, 0, 2**26))
    # What of a trained tower is computed again in the backward pass: nothing, all of each block, or
    # all but its matrix products.
    remat: Remat = key(choice(*get_args(Remat)))
    steps: int = key(integer(1000, 1))
    log_every: int = key(integer(50, 1), harmless=True)
    steps_per_call: int = key(integer(0, 0, 10_000), harmless=True)  # 0: as many as serve.
    eval_every: int = key(integer(0, 0))  # 0: at the end only, as for checkpoints.
    checkpoint_every: int = key(integer(0, 0))
    keep: int = key(integer(2, 1), harmless=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig(Section):
    """Evaluation and encoding."""

    batch: int = key(integer(64, 1, 2**16))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig(OpenSection):
    """The contrastive loss, which declares further keys, and its scale."""

    name: str = key(component("softmax", lambda: LOSSES))
    # Which pairs are not negatives of each other: those that share an image, or a caption too.
    same: Same = key(choice(*get_args(Same)))
    # 'local' is LilT's: a batch in `local_groups` parts, of which none sees another.
    negatives: Literal["global", "local"] = key(choice("global", "local"))
    local_groups: int = key(integer(0, 0, 2**20))
    positives: int = key(integer(1, 1, 64))  # Captions an image and step.
    # One matrix of all logits, or tiles of it round a ring of devices; 'auto' by size.
    impl: LossImpl = key(choice(*get_args(LossImpl)))
    scale: float = key(number(1 / 0.07, 1e-3, 1e3))
    scale_max: float = key(number(100.0, 1e-3, 1e4))
    learn_scale: bool = key(flag(True))

    @classmethod
    def declarations(cls) -> Mapping[str, Field]:
        """The keys of losses."""
        return declared_keys(LOSSES.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """The optimizer and its schedule."""

    name: Literal["adamw", "adam", "lion", "sgd"] = key(choice("adamw", "adam", "lion", "sgd"))
    lr: float = key(number(1e-3, 0.0, 10.0))
    lr_end: float = key(number(0.0, 0.0, 1.0))  # As a share of `lr`.
    schedule: str = key(choice("cosine", "constant", "linear", "rsqrt"))
    warmup: int = key(integer(0, 0))
    b1: float = key(number(0.9, 0.0, 0.9999))
    b2: float = key(number(0.999, 0.0, 0.999999))
    weight_decay: float = key(number(0.0, 0.0, 10.0))
    decay_on: str = key(regex(".*/kernel"))
    clip: float = key(number(1.0, 0.0))  # Global norm; 0 turns clipping off.
    ema: float = key(number(0.0, 0.0, 0.999999))  # Decay of the moving average that is evaluated.
    lr_mults: tuple[tuple[str, float], ...] = key(
        Field((), "pairs (regular expression, factor >= 0)", is_multipliers)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig(Section):
    """How parameters lie on the devices."""

    # Frozen parameters of at least this many elements are sharded over the mesh.
    shard_min_size: int = key(integer(2**20, 1))
    # Devices over which a trained parameter and its optimizer state are split; 1 has them whole.
    fsdp: int = key(integer(1, 1, 2**20), harmless=True)
    # Where parameters lie whose names match, whatever the two keys above say: see `placement`.
    rules: tuple[tuple[str, str], ...] = key(
        Field((), placement.EXPECTS, placement.is_rules), harmless=True
    )
