"""A tower beside its own library: what both make of the same images or texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ape_jax.errors import UserError
from ape_jax.towers.bound import BoundTower, load
from ape_jax.towers.files import sources
from ape_jax.towers.torch.st_texts import StTexts
from ape_jax.towers.tower import Kind

TEXTS = (
    "a photo of a cat",
    "Zwei große Hunde spielen im Schnee.",
    "une tasse de café, naïve et brûlante",
    "Две кошки сидят на подоконнике",
    "猫がソファーで寝ている",
    "고양이와 강아지",
    "قطة تنام على الأريكة",
    "एक बिल्ली खिड़की पर बैठी है",
    "Kaķis sēž uz palodzes, un ārā līst",
    "🐈‍⬛ and 🐕, 3.14 % of <all> [things]",
)
"""In several scripts, with accents, digits and emoji."""
LARGEST = 2e-5
"""The largest difference, by the largest value, that rounding in float32 explains."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """What two libraries make of the same inputs.

    Attributes:
      what: "token ids", "tokens" or "pooled".
      largest: the largest difference by the largest value.
      fits: whether it is no larger than rounding explains; of ids, whether all are equal.
    """

    what: str
    largest: float
    fits: bool


def check(spec: str, kind: Kind, inputs: Sequence[Any] = ()) -> list[Difference]:
    """Compares a tower with the library that its files are made for.

    Args:
      spec: of a tower that JAX runs.
      kind: "image" or "text".
      inputs: paths of images, or texts; by default drawings of several sizes, or `TEXTS`.

    Returns:
      The differences in float32.

    Raises:
      UserError: the tower or its library cannot be read.
    """
    inputs = list(inputs) or (drawings() if kind == "image" else list(TEXTS))
    own, other = load(spec, kind=kind, dtype="float32"), _other(spec, kind)
    # One at a time: a library without a padding token cannot take texts of several lengths.
    single = [[item] for item in inputs]
    found = _ids(own, other, single) if kind == "text" else []
    own_pooling = own.config.pooling if getattr(own.config, "pooling_known", True) else "mean"
    pooled = own_pooling == other.config.pooling or other.config.pooling == "own"
    if pooled and own.config.pooling != "none":
        vectors = (np.concatenate([t.encode(one) for one in single]) for t in (own, other))
        found.append(_difference("pooled", *vectors))
    tokens = [np.concatenate([_tokens(t, one) for one in single]) for t in (own, other)]
    if tokens[0].shape == tokens[1].shape:
        found.append(_difference("tokens", *tokens))
    if not found:
        raise UserError(f"{spec}: its library gives neither the same tokens nor a pooled vector")
    return found


def drawings() -> list[UInt8[np.ndarray, "h w 3"]]:
    """Images of several sizes and shapes: waves of colour with hard edges and noise."""
    rng, made = np.random.default_rng(0), []
    for height, width in ((224, 224), (97, 160), (300, 180), (64, 64)):
        y, x = np.mgrid[:height, :width] / 20.0
        waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1) * 100 + 128
        waves[height // 4 : height // 2, width // 3 :] = rng.integers(0, 256, 3)
        made.append((waves + rng.normal(0, 6, waves.shape)).clip(0, 255).astype(np.uint8))
    return made


def library(path: Path) -> str:
    """The library that a directory is made for: "st", "timm" or "hf", as in `torch:hf:DIR`.

    Raises:
      UserError: for files of another one.
    """
    if path.is_dir() and (path / "modules.json").is_file():
        return "st"
    if path.is_dir() and (path / "config.json").is_file():
        values: Mapping[str, Any] = sources.read_json(path / "config.json")
        if "model_type" in values:
            return "hf"
        if "architecture" in values:
            return "timm"
    raise UserError(
        f"{path}: only towers of transformers, timm and sentence-transformers are compared"
    )


def _other(spec: str, kind: Kind) -> BoundTower:
    path = sources.resolve(spec)
    return load(f"torch:{library(path)}:{path}", kind=kind, dtype="float32")


def _ids(own: BoundTower, other: BoundTower, texts: Sequence[list[Any]]) -> list[Difference]:
    """Whether both have the same ids; nothing where the library does not show its own."""
    wrong = 0
    for text in texts:
        ours, theirs = own.prepare(text), other.prepare(text)
        if isinstance(other.tower.outside, StTexts):  # It keeps texts, with the ids inside.
            theirs = other.tower.outside.features(theirs["texts"])
        if "input_ids" not in theirs:
            return []
        mask = theirs.get("attention_mask", np.ones_like(theirs["input_ids"]))
        ids = np.asarray(theirs["input_ids"])[0][np.asarray(mask)[0].astype(bool)]
        wrong += ours["ids"][0][ours["mask"][0]].tolist() != ids.tolist()
    return [Difference(what="token ids", largest=wrong / len(texts), fits=not wrong)]


def _tokens(tower: BoundTower, inputs: Sequence[Any]) -> Float[np.ndarray, "n d"]:
    """All real tokens of all inputs, one after the other."""
    out = tower(tower.prepare(inputs), pooling="none")
    return np.asarray(out.tokens)[np.asarray(out.mask)]


def _difference(what: str, ours: Any, theirs: Any) -> Difference:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape:
        return Difference(what=what, largest=float("inf"), fits=False)
    largest = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return Difference(what=what, largest=largest, fits=largest <= LARGEST)
