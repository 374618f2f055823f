"""Sections of the towers and of what is trained on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

from ape_jax.config import poolings, tune
from ape_jax.config.components import CLOSED_FORMS, component, declared_keys, heads_of
from ape_jax.config.fields import (
    BY_DATA,
    Field,
    automatic,
    choice,
    flag,
    integer,
    layers,
    number,
    regex,
    string,
)
from ape_jax.config.section import OpenSection, Section, key, section

Dtype = Literal["bfloat16", "float32"]
ParamDtype = Literal["float32", "bfloat16", "int8"]
Layer = int | tuple[int, ...] | Literal["auto"]
_LAYER = (
    "Output after this block, counted as transformers' hidden_states; -1 is the last. Of several, "
    "(9, 11, -1), the pooled vectors of an image, or the tokens of a caption, are joined; "
    "'auto' chooses by the training pairs."
)


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
        string(expects="a tower: hf:org/name, a directory, a .npz, demo:NAME or torch:hf:NAME"),
        "The pretrained encoder of this side.",
    )
    tune: str = key(
        Field("frozen", tune.EXPECTS, tune.is_tune),
        "What of the tower is trained; a frozen tower is encoded once.",
    )
    layer: Layer = key(layers(-1), _LAYER)
    dtype: Dtype = key(choice(*get_args(Dtype)), "What the tower computes in.")
    param_dtype: ParamDtype = key(
        choice(*get_args(ParamDtype)),
        "What parameters are kept in; 'int8' is for the blocks' kernels of a frozen tower.",
    )
    trust_remote_code: bool = key(
        flag(False), "Of a tower 'torch:...': whether Python code in its files may be run."
    )
    torch_device: str = key(
        string("auto", "a device of torch ('cuda:1'), or 'auto' for a GPU where there is one"),
        "Of a tower 'torch:...': where it is run.",
        harmless=True,
    )
    head: HeadConfig = section(HeadConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig(SideConfig):
    """The image side; `standardize` is the one fixed affine map that a frozen tower may have."""

    head: ImageHeadConfig = section(ImageHeadConfig)
    pooling: str = key(
        choice("own", "cls", "mean", "cls+mean", "map", "none", BY_DATA),
        "How an image becomes one vector; 'none' keeps all tokens, for a head that pools; 'auto' "
        "chooses by the training pairs.",
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
        Field(
            poolings.OWN,
            f"'own', 'auto', or {poolings.EXPECTS}",
            lambda v: v == BY_DATA or poolings.is_own_or_pooling(v),
        ),
        "How a caption becomes one vector, for heads on one vector; 'own' is what the tower's "
        "files say, the mean where they say nothing; 'auto' chooses by the training pairs.",
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
    weights: Literal["folded", "kept"] = key(
        choice("folded", "kept"),
        "Weights of CCA's directions: in the heads, which are trained, or fixed behind both heads.",
    )
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
