"""`--format stablehlo`: two programs that `jax` runs without us, their weights beside them.

Both are `jax.export`'s: lowered for all platforms at once, with sizes of batch and text left free.
Weights are arguments, in safetensors files of their own, where they can be looked at; in a program
they would be constants that every compiler has to go through.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax import export
from jaxtyping import Array, Float

from ape_jax.align.heads.base import batch_norm
from ape_jax.align.model import Model
from ape_jax.align.tuning.selection import flatten
from ape_jax.exporters import parts, processors, verify
from ape_jax.exporters.files import write_json, write_tensors
from ape_jax.exporters.formats import ExportFormat, by_rows
from ape_jax.exporters.publish import card
from ape_jax.nn import matmul
from ape_jax.runs.aligned import AlignedModel

PLATFORMS = ("cpu", "cuda", "tpu")
_TREES = ("trainable", "frozen")
_OTHERS = {"image": ("languages",), "text": ("center", "spread")}
"""Statistics that are of the other half alone."""

Weights = Mapping[str, Array]
"""Leaves by their paths, `trainable/text_head/dense_0/kernel`: `top:K` has some in both trees."""


def write(aligned: AlignedModel, directory: Path) -> None:
    """Fills an empty directory with two programs, their weights, and what goes before them.

    Raises:
      UserError: where no token can stand for padding.
      OSError: where it cannot be written.
    """
    for name, (function, *inputs) in _halves(aligned).items():
        weights = _weights(aligned, name)
        with matmul.xla_only(), _no_locations():
            program = export.export(jax.jit(function), platforms=PLATFORMS)(weights, *inputs)
        write_tensors(directory / f"{name}.safetensors", weights, form="np")
        (directory / f"{name}.stablehlo").write_bytes(program.serialize())
    processors.write(aligned, directory)
    write_json(directory / "config.json", {**parts.settings(aligned), "platforms": PLATFORMS})
    text = card.text(aligned, card.STABLEHLO, library="jax")
    (directory / "README.md").write_text(text, encoding="utf-8")
    card.copy_notices(aligned, directory)


@contextlib.contextmanager
def _no_locations() -> Iterator[None]:
    """Programs hold the lines of code that each operation comes of, with paths of this machine."""
    key = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, key)
    jax.config.update(key, 0)
    try:
        yield
    finally:
        jax.config.update(key, before)


def _halves(aligned: AlignedModel) -> dict[str, tuple]:
    """By name, a function of weights and inputs, and the shapes of these inputs."""
    tower, longest = aligned.model.image.tower, aligned.model.text.tower.prepare.max_length
    size = tower.prepare.transform.size
    rows = export.symbolic_shape(f"batch, 3, {size}, {size}")
    images = jax.ShapeDtypeStruct(rows, jnp.float32)
    rows = export.symbolic_shape("batch, length", constraints=[f"length <= {longest}"])
    tokens = jax.ShapeDtypeStruct(rows, jnp.int32)
    texts = [tokens, tokens]
    if aligned.model.languages is not None:
        texts.append(jax.ShapeDtypeStruct(rows[:1], jnp.int32))
    return {
        "image": (_image_half(aligned.model), images),
        "text": (_text_half(aligned.model), *texts),
    }


def _image_half(model: Model) -> Callable[..., Array]:
    def encode(weights: Weights, pixel_values: Float[Array, "B 3 S S"]) -> Float[Array, "B E"]:
        trainable, frozen = _trees(weights)
        features = model.image_features(frozen, {"image": pixel_values.transpose(0, 2, 3, 1)})
        return model.embed(trainable, frozen, features)

    return encode


def _text_half(model: Model) -> Callable[..., Array]:
    def encode(
        weights: Weights, input_ids: Array, attention_mask: Array, *language: Array
    ) -> Float[Array, "B E"]:
        trainable, frozen = _trees(weights)
        batch = {"ids": input_ids, "mask": attention_mask != 0}
        if language:  # Of a model with means of languages.
            batch["language"] = language[0]
        return model.embed(trainable, frozen, model.text_features(frozen, batch))

    return encode


def _weights(aligned: AlignedModel, name: str) -> dict[str, np.ndarray]:
    """Weights of one half, as they are kept: int8 stays int8."""
    weights = {}
    for kind, tree in zip(_TREES, (batch_norm.joined(aligned.trainable), aligned.frozen)):
        own = {key: part for key, part in tree.items() if key.startswith(f"{name}_")}
        if "statistics" in tree:
            kept, others = tree["statistics"].items(), _OTHERS[name]
            own["statistics"] = {k: x for k, x in kept if k not in others}
        weights |= {f"{kind}/{path}": np.asarray(leaf) for path, leaf in flatten(own).items()}
    return weights


def _trees(weights: Weights) -> tuple[Mapping, Mapping]:
    """The trainable and the frozen parameters."""
    trainable, frozen = (unflatten_dict(dict(weights), sep="/").get(kind, {}) for kind in _TREES)
    return batch_norm.separated(trainable), frozen


def _encode(
    aligned: AlignedModel, directory: Path, inputs: verify.Inputs
) -> dict[str, verify.Embeddings]:
    return by_rows("stablehlo", verify.stablehlo(directory, inputs))


STABLEHLO = ExportFormat(
    name="stablehlo", title="for jax alone", write=write, encode=_encode, takes_languages=True
)
