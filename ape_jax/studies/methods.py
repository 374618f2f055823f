"""The methods that a study compares, by name, and the config keys that each of them sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ape_jax import config as config_lib
from ape_jax import recipes
from ape_jax.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A row of a study's table.

    Attributes:
      title: name in the table.
      overrides: keys that differ from the study's config; None for a baseline that is not a run.
        Another head's name resets the other keys of that head to their defaults.
      seeded: whether the result on the same pairs depends on the seed.
    """

    title: str
    overrides: Mapping[str, Any] | None = None
    seeded: bool = True


def _solved(title: str, name: str) -> Method:
    return Method(title=title, overrides={"method": name}, seeded=False)


_BOTH_LINEAR = {"image.head.name": "linear", "text.head.name": "linear"}

_ONE_VIEW = {
    "cache.views": 1,
    "augment.crop": (),
    "augment.flip": False,
    "augment.randaugment": (),
}

# What a recipe's method is, apart from its towers, pairs and views, which are the study's.
_METHOD = (
    *("closed.", "start.", "latent.", "loss.", "image.head.", "text.head.", "optim."),
    *("train.steps", "train.batch"),
)


def _of_recipe(name: str) -> Mapping[str, Any]:
    """The keys by which a recipe's method differs from the defaults."""
    found, usual = config_lib.flatten(recipes.read(name)), config_lib.flatten(Config())
    return {
        key: value
        for key, value in found.items()
        if key.startswith(_METHOD) and value != usual.get(key)
    }


# `few_pairs` as it was: at one rate, for as many steps as the others. Kept results have it.
_CCA_TOKEN_MLP = {
    "start.method": "cca",
    "closed.l2": 1.0,
    "closed.power": 1.0,
    "image.head.name": "linear",
    "text.head.name": "linear+token_mlp",
    "text.head.depth": 2,
    "text.head.width": 1024,
    "latent.dropout": 0.3,
    "optim.lr": 3e-4,
}
_AND_LOOKUP = {
    "text.head.name": "linear+token_mlp+lookup",
    "optim.decay_on": ".*/(kernel|table)",
}
_FEW_PAIRS = _of_recipe("few_pairs")


def _tuned(title: str, image: str, text: str) -> Method:
    """A method that trains towers, under linear heads with ten times their learning rate."""
    overrides = {"image.tune": image, "text.tune": text, "text.pooling": "cls"}
    if image == "frozen":
        overrides |= {"text.head.name": "linear"}
    else:  # There are no fixed features to take statistics of.
        overrides |= {"image.standardize": False, "embed": 256, **_BOTH_LINEAR}
    mults = ((".*_head/.*", 10.0), (".*log_scale", 10.0))
    return Method(title=title, overrides={**overrides, "optim.lr": 1e-4, "optim.lr_mults": mults})


METHODS: Mapping[str, Method] = {
    "chance": Method(title="chance", seeded=False),
    "pixels": Method(title="raw pixels, ridge to text", seeded=False),
    "ridge": _solved("ridge, pooled text to image", "ridge"),
    "ridge_text": _solved("ridge, image to pooled text", "ridge_text"),
    "cca": _solved("CCA", "cca"),
    "procrustes": _solved("orthogonal Procrustes", "procrustes"),
    "asif": _solved("ASIF", "asif"),
    # A token MLP of one layer is linear on mean-pooled text.
    "linear": Method(title="linear on pooled text", overrides={"text.head.depth": 1}),
    "ape": Method(title="APE", overrides={}),
    "ape+linear_image": Method(
        title="APE, linear on the image side", overrides={"image.head.name": "linear"}
    ),
    **{
        f"ape_{depth}x{width}": Method(
            title=f"APE, {depth} layers of {width}",
            overrides={"text.head.depth": depth, "text.head.width": width},
        )
        for depth, width in ((2, 384), (4, 384), (6, 384), (2, 1024), (4, 1024))
    },
    "ape_one_view": Method(title="APE, one clean view an image", overrides=_ONE_VIEW),
    "ape_words": Method(
        title="APE, words left out of captions", overrides={"augment.words": (4, 0.2)}
    ),
    "cca_start": Method(
        title="linear on both sides, started from CCA",
        overrides={"start.method": "cca", **_BOTH_LINEAR},
    ),
    "pooled_mlp": Method(title="MLP on pooled text", overrides={"text.head.name": "pooled_mlp"}),
    "transformer": Method(title="transformer", overrides={"text.head.name": "transformer"}),
    "lookup": Method(
        title="lookup table of tokens",
        overrides={"text.head.name": "lookup", "optim.decay_on": ".*/table"},
    ),
    "cca_start+token_mlp": Method(
        title="few_pairs as it was: CCA start, token MLP beside it", overrides=_CCA_TOKEN_MLP
    ),
    "cca_start+token_mlp+lookup": Method(
        title="the same, and a lookup table beside it",
        overrides={**_CCA_TOKEN_MLP, **_AND_LOOKUP},
    ),
    "few_pairs": Method(title="few_pairs: CCA start, token MLP beside it", overrides=_FEW_PAIRS),
    "few_pairs+lookup": Method(
        title="few_pairs, and a lookup table beside it", overrides={**_FEW_PAIRS, **_AND_LOOKUP}
    ),
    "lit": _tuned("LiT: text tower trained", "frozen", "full"),
    "clip": _tuned("CLIP: both towers trained", "full", "full"),
    **{
        f"lilt_{mode}": _tuned(f"LilT: {mode}", mode, mode)
        for mode in (
            *("layernorm", "bitfit", "append", "append+layernorm"),
            *("adapter", "adapter+layernorm", "adapter+bitfit", "lora"),
        )
    },
}
