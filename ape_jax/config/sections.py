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
    automatic,
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

    name: str = key(
        component("identity", lambda: heads_of("image")), "What is trained on image features."
    )

    @classmethod
    def declarations(cls) -> Mapping[str, Field]:
        """The keys of heads on images."""
        return declared_keys(heads_of("image").values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextHeadConfig(HeadConfig):
    """The head on caption features, or the sum of several, "linear+token_mlp"."""

    name: str = key(
        component("token_mlp", lambda: heads_of("text"), joint="+"),
        "What is trained on caption features, or the sum of several.",
    )

    @classmethod
    def declarations(cls) -> Mapping[str, Field]:
        """The keys of heads on captions."""
        return declared_keys(heads_of("text").values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideConfig(Section):
    """One modality: its tower, its tuning mode and its head."""

    tower: str = key(
        string(expects="a tower: hf:org/name, a directory, a .npz or demo:NAME"),
        "The pretrained encoder of this side.",
    )
    tune: str = key(
        Field("frozen", tune.EXPECTS, tune.is_tune),
        "What of the tower is trained; a frozen tower is encoded once.",
    )
    layer: int = key(
        integer(-1, -1, 1000),
        "Output after this block, counted as transformers' hidden_states; -1 is the last.",
    )
    dtype: Dtype = key(choice(*get_args(Dtype)), "What the tower computes in.")
    param_dtype: ParamDtype = key(
        choice(*get_args(ParamDtype)),
        "What parameters are kept in; 'int8' is for the blocks' kernels of a frozen tower.",
    )
    head: HeadConfig = section(HeadConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig(SideConfig):
    """The image side; `standardize` is the one fixed affine map that a frozen tower may have."""

    head: ImageHeadConfig = section(ImageHeadConfig)
    pooling: str = key(
        choice("own", "cls", "mean", "cls+mean", "map", "none"),
        "How an image becomes one vector; 'none' keeps all tokens, for a head that pools.",
    )
    size: int = key(
        automatic(integer(0, 0, 4096), "the images"),
        "Side of the square that images are resized to; 0 is the tower's own.",
    )
    standardize: bool = key(
        flag(True),
        "Centres and scales the features of a frozen tower once, by the training images.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(SideConfig):
    """The text side, and the head on its tokens."""

    head: TextHeadConfig = section(TextHeadConfig)
    pooling: str = key(
        choice("mean", "cls", "last"), "How a caption becomes one vector, for heads on one vector."
    )
    max_length: int = key(
        integer(0, 0, 2**16), "Tokens that a caption is cut to; 0 is the tower's own limit."
    )
    prefix: str = key(
        string("own", "a string, or 'own' for the tower's"),
        "Put before every caption, as towers such as E5 want it; 'own' is the tower's.",
    )


def _starts() -> list[str]:
    return [name for name, form in CLOSED_FORMS.items() if form.starts]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartConfig(Section):
    """Where trained heads start from."""

    method: str = key(component("none", _starts), "Closed form that trained heads start from.")
    model: str = key(
        string("", "a finished two-tower model, or '' for fresh heads"),
        "Finished two-tower model whose heads, scale and bias training starts from.",
    )
    run: str = key(
        string("", "the work directory of a run, or '' for fresh heads"),
        "Run whose trained parameters training starts from: to prolong it, or to go on elsewhere.",
    )


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

    adapter_reduction: int = key(
        integer(4, 1, 4096), "The adapters' width is the tower's divided by this."
    )
    lora_rank: int = key(integer(8, 1, 4096), "Rank of the LoRA matrices.")
    lora_alpha: float = key(
        number(16.0, 0.0, 1e6), "LoRA adds its product times this, divided by the rank."
    )
    lora_targets: str = key(
        regex(".*/(query|value)"),
        "Dense layers that get LoRA, by their paths in the tower's blocks.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The pairs, and how their images are read."""

    pairs: str = key(
        string(expects="pairs: a file, tfds:NAME:SPLIT or demo:NAME:SPLIT"), "What is trained on."
    )
    sample: int = key(
        integer(0, 0),
        "So many of the pairs, a random sample keyed by seed that grows with the number; 0 is all.",
    )
    split: float = key(
        number(0.0, 0.0, 0.5),
        "Share of the images of `pairs` that is held out, as the evaluation 'held-out'; 0 is none.",
    )
    eval: Mapping[str, str] = key(
        Field({}, "a mapping from names to pairs, {'test': 'pairs.jsonl'}", is_specs),
        "What is evaluated on, by name.",
    )
    on_error: OnError = key(
        choice(*get_args(OnError)),
        "Whether an image that cannot be read ends the run, or is left out and counted.",
    )
    background: Colour = key(
        Field((255, 255, 255), "three integers from 0 to 255", is_colour),
        "Colour behind transparent images.",
    )
    workers: int = key(integer(2, 1, 256), "Threads that read and decode images.", harmless=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig(Section):
    """Augmentations of training pairs; () turns one off."""

    crop: tuple[float, ...] = key(
        Field((), "() or two areas, 0 < low <= high <= 1", is_crop),
        "Random crops: smallest and largest share of the area.",
    )
    flip: bool = key(
        flag(False), "Mirrors half of the images; not for pictures of text or of left and right."
    )
    randaugment: tuple[float, ...] = key(
        Field((), "() or (operations, magnitude up to 10)", is_randaugment),
        "RandAugment: operations an image, and their magnitude.",
    )
    words: tuple[float, ...] = key(
        Field((), "() or (variants from 1 to 64, rate between 0 and 1)", is_words),
        "Further training captions with words left out: so many of each, and the rate.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig(Section):
    """Features of frozen towers: what is encoded once, and where it is kept."""

    views: int = key(
        automatic(integer(1, 0, 1000), "the number of pairs"),
        "How often a frozen image is encoded: 0 anew in every step, 1 clean, K augmented views.",
    )
    seed: int = key(
        integer(0, 0, 2**32 - 1),
        "Keys the views, apart from the run's seed, so that runs share them.",
    )
    text: bool = key(
        flag(True),
        "Whether captions of a frozen text tower are encoded once, or anew in every step.",
    )
    dtype: Dtype = key(choice(*get_args(Dtype)), "What cached features are stored in.")
    dir: str = key(
        string("", "a directory, '' for the cache folder's own, or 'none'"),
        "Where features are kept; '' is `features` in the cache folder, 'none' memory only.",
        harmless=True,
    )
    missing: Literal["encode", "error"] = key(
        choice("encode", "error"),
        "'error' stops where features would have to be encoded.",
        harmless=True,
    )
    place: CachePlace = key(
        choice(*get_args(CachePlace)),
        "Where features live in training; 'auto' is the device where they fit.",
        harmless=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentConfig(Section):
    """Augmentation of cached features: Beta's alpha of the mixup, standard deviation, rate."""

    mixup: float = key(
        number(0.0, 0.0, 100.0),
        "Mixes the features of two pairs, with Beta's alpha; 0 turns it off.",
    )
    noise: float = key(number(0.0, 0.0, 100.0), "Standard deviation of noise on features.")
    dropout: float = key(number(0.0, 0.0, 0.99), "Rate of features that are dropped in training.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """The length of training, its batches, and what is written when."""

    batch: int = key(
        automatic(integer(512, 2, 2**26), "the number of pairs"),
        "Pairs a step, over all devices; each is a negative of all others.",
    )
    micro_batch: int = key(
        integer(0, 0, 2**26),
        "Pairs whose activations are kept at a time, with the same gradient; 0 is the whole batch.",
    )
    remat: Remat = key(
        choice(*get_args(Remat)),
        "What of a trained tower is computed again in the backward pass, to save memory.",
    )
    steps: int = key(
        automatic(integer(1000, 1), "the number of pairs"),
        "Number of steps; epochs are steps x batch / pairs.",
    )
    log_every: int = key(
        automatic(integer(50, 1), "train.steps"),
        "Steps between lines of metrics.jsonl.",
        harmless=True,
    )
    steps_per_call: int = key(
        integer(0, 0, 10_000),
        "Steps that one call of the device makes; 0 is as many as serve.",
        harmless=True,
    )
    eval_every: int = key(
        automatic(integer(0, 0), "train.steps"),
        "Steps between evaluations; 0 is at the end only, and a tenth with eval.keep='best'.",
    )
    checkpoint_every: int = key(
        automatic(integer(0, 0), "train.steps"), "Steps between checkpoints; 0 is at the end only."
    )
    keep: int = key(integer(2, 1), "Newest checkpoints that are kept.", harmless=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig(Section):
    """Evaluation and encoding."""

    keep: Literal["last", "best"] = key(
        choice("last", "best"),
        "The state that is used afterwards: the last, or the one that did best when evaluated.",
    )
    batch: int = key(integer(64, 1, 2**16), "Images or captions that are encoded at a time.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig(OpenSection):
    """The contrastive loss, which declares further keys, and its scale."""

    name: str = key(component("softmax", lambda: LOSSES), "The contrastive loss.")
    same: Same = key(
        choice(*get_args(Same)),
        "Which pairs are not negatives of each other: those that share an image, or a caption too.",
    )
    negatives: Literal["global", "local"] = key(
        choice("global", "local"),
        "'local' is LilT's: a batch in `local_groups` groups, none of which sees another.",
    )
    local_groups: int = key(
        integer(0, 0, 2**20), "Number of groups with negatives='local': in LilT, that of GPUs."
    )
    positives: int = key(integer(1, 1, 64), "Captions of an image in one step.")
    impl: LossImpl = key(
        choice(*get_args(LossImpl)),
        "One matrix of all logits, or tiles of it round a ring of devices; 'auto' by size.",
    )
    scale: float = key(
        number(1 / 0.07, 1e-3, 1e3), "What cosines are multiplied with at first: 1 / temperature."
    )
    scale_max: float = key(number(100.0, 1e-3, 1e4), "What the trained scale cannot exceed.")
    learn_scale: bool = key(flag(True), "Whether the scale is trained.")

    @classmethod
    def declarations(cls) -> Mapping[str, Field]:
        """The keys of losses."""
        return declared_keys(LOSSES.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """The optimizer and its schedule."""

    name: Literal["adamw", "adam", "lion", "sgd"] = key(
        choice("adamw", "adam", "lion", "sgd"), "The optimizer."
    )
    lr: float = key(number(1e-3, 0.0, 10.0), "Peak learning rate.")
    lr_end: float = key(number(0.0, 0.0, 1.0), "Learning rate at the end, as a share of lr.")
    schedule: str = key(
        choice("cosine", "constant", "linear", "rsqrt"),
        "How the learning rate falls after the warm-up.",
    )
    warmup: int = key(
        automatic(integer(0, 0), "train.steps"), "Steps in which the learning rate rises from 0."
    )
    b1: float = key(number(0.9, 0.0, 0.9999), "Decay of the mean of gradients.")
    b2: float = key(number(0.999, 0.0, 0.999999), "Decay of the mean of squared gradients.")
    weight_decay: float = key(
        number(0.0, 0.0, 10.0), "Decoupled weight decay, times the learning rate."
    )
    decay_on: str = key(regex(".*/kernel"), "Parameters that decay, by name.")
    clip: float = key(
        number(1.0, 0.0), "Largest global norm of the gradient; 0 turns clipping off."
    )
    ema: float = key(
        number(0.0, 0.0, 0.999999),
        "Decay of the moving average of parameters that is evaluated; 0 turns it off.",
    )
    lr_mults: tuple[tuple[str, float], ...] = key(
        Field((), "pairs (regular expression, factor >= 0)", is_multipliers),
        "Factors of the learning rate by parameter name; the first pattern that matches counts.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig(Section):
    """How parameters lie on the devices."""

    shard_min_size: int = key(
        integer(2**20, 1),
        "Frozen parameters of at least this many elements are split over the devices.",
    )
    fsdp: int = key(
        integer(1, 1, 2**20),
        "Devices over which a trained parameter and its optimizer state are split; 1: whole.",
        harmless=True,
    )
    rules: tuple[tuple[str, str], ...] = key(
        Field((), placement.EXPECTS, placement.is_rules),
        "Where parameters lie whose names match, whatever the two keys above say.",
        harmless=True,
    )
