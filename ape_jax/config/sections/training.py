"""Sections of the training: loop, loss, optimizer, mesh, evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

from ape_jax.config import placement
from ape_jax.config.components import LOSSES, component, declared_keys
from ape_jax.config.fields import (
    Field,
    automatic,
    choice,
    flag,
    integer,
    is_multipliers,
    number,
    regex,
    widths,
)
from ape_jax.config.section import OpenSection, Section, key

Remat = Literal["none", "blocks", "all_but_products"]
Same = Literal["image", "image+caption", "none"]
LossImpl = Literal["auto", "dense", "ring"]


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
    folds: int = key(
        integer(0, 0, 100),
        "Folds of the pairs that choose the number of steps, up to train.steps, by the retrieval "
        "of what each holds out; 0 takes train.steps.",
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
    dim: int = key(
        integer(0, 0, 2**20),
        "First numbers of an embedding that are used, at unit length again; 0 is all.",
    )
    ranks: bool = key(
        flag(False), "Whether DIR/ranks.npz keeps the rank of every query of the last evaluation."
    )


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
    hard: int = key(
        integer(0, 0, 64),
        "Negative captions of an image in one step, from the column 'negatives'; 0 is none.",
    )
    dims: tuple[int, ...] = key(
        widths(),
        "Matryoshka: the loss is also that of the first so many numbers of the embeddings; () is "
        "all of them alone.",
    )
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
class StructureConfig(Section):
    """STRUCTURE's term, which has heads keep the geometry of their towers' features."""

    weight: float = key(
        number(0.0, 0.0, 1e6), "Factor of the structure term in the loss, 10 in STRUCTURE; 0: off."
    )
    ramp: int = key(
        integer(1000, 0), "Steps in which the factor rises from 0; 0 starts with all of it."
    )
    temperature: float = key(
        number(0.05, 1e-6, 1e3), "What the cosines of features and of embeddings are divided by."
    )
    levels: int = key(
        integer(1, 1, 16), "Highest power of the neighbourhoods: 2 has neighbours of neighbours."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubwordsConfig(Section):
    """SuperCLIP's side loss: images predict the subwords of their captions."""

    weight: float = key(
        number(0.0, 0.0, 1e6),
        "Factor of the side loss, in which a linear layer on the image's embedding predicts which "
        "subwords its caption has; 0: off.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """The optimizer and its schedule."""

    name: Literal["adamw", "adam", "lion", "sgd"] = key(
        choice("adamw", "adam", "lion", "sgd"), "The optimizer."
    )
    lr: float = key(
        automatic(number(1e-3, 0.0, 10.0), "the number of pairs"), "Peak learning rate."
    )
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
