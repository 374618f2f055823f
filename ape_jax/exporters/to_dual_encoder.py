"""`--format dual_encoder`: transformers' own `VisionTextDualEncoderModel`, without any code.

That model is `projection @ pooler_output` on either side, at unit length, and its projections have
no bias. So a run is expressible where both towers' own pooled outputs are read and both heads are
linear. What is affine beyond that is moved into the tower: with `W` and `c` of `z = W x + c`,
statistics included, and `W s = c`, the bias of the last layer before the pooling gets `s` added.
Nothing is approximated but by rounding, and a finished model goes back out with the bits it came.

Of BERT's kind, and ViT's, the pooled output has passed a dense layer and tanh. There the head is
that layer and the projection: `pooled_mlp` of two layers, as finished models have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Float

from ape_jax.align import heads as flax_heads
from ape_jax.align.model import Side
from ape_jax.errors import UserError
from ape_jax.exporters import parts, processors, towers, verify
from ape_jax.exporters.files import write_json, write_tensors
from ape_jax.exporters.formats import TORCH_MODULES, ExportFormat
from ape_jax.exporters.publish import card
from ape_jax.exporters.towers import Exported
from ape_jax.runs.aligned import AlignedModel
from ape_jax.towers.family import PoolerOutput

_LEAST_EXACT = 1e-9  # Of `W s = c`, against the length of c.

Map = tuple[Float[np.ndarray, "E d"], Float[np.ndarray, " E"]]


def write(aligned: AlignedModel, directory: Path) -> None:
    """Fills an empty directory.

    Raises:
      UserError: naming what in the run the model cannot express.
    """
    text = aligned.model.text.tower.prepare
    if text.prefix:
        raise _refusal(f"its captions get the prefix {text.prefix!r}")
    tensors, configs = {}, {}
    for name, ours in (("vision", "image"), ("text", "text")):
        side, params, head = parts.side(aligned, ours)
        tower = towers.export(side, params, keep_positions=aligned.is_imported)
        pooler = _pooler(ours, side, tower)
        if pooler.dense:
            weight = _with_pooler(aligned, ours, head, tower)
        else:
            weight = _move_constant(tower, pooler, _linear(aligned, ours, side, head))
        tensors |= {f"{name}_model.{key}": value for key, value in tower.tensors.items()}
        tensors["visual_projection.weight" if name == "vision" else "text_projection.weight"] = (
            weight
        )
        configs[f"{name}_config"] = tower.config
    if "bias" in parts.logits(aligned):
        raise _refusal("its logits have the bias of loss.name='sigmoid'")
    tensors["logit_scale"] = parts.logits(aligned)["log_scale"]
    write_tensors(directory / "model.safetensors", tensors | dict(aligned.unread))
    _write_texts(aligned, directory, configs)


def _write_texts(aligned: AlignedModel, directory: Path, configs: dict[str, Any]) -> None:
    kind = "VisionTextDualEncoder"
    config = {"model_type": "vision-text-dual-encoder", "architectures": [f"{kind}Model"]}
    sizes = {"dtype": "float32", "projection_dim": parts.dim(aligned.model)}
    write_json(directory / "config.json", {**config, **sizes, **configs})
    image, text = aligned.model.image.tower.prepare, aligned.model.text.tower.prepare
    if image.transform.rounding != "transformers":
        raise _refusal("its images are cropped as timm and open_clip do")
    settings = {**processors.image_settings(image.transform)}
    write_json(
        directory / "preprocessor_config.json",
        {**settings, "image_processor_type": "BitImageProcessor"},
    )
    (directory / "tokenizer.json").write_text(processors.tokenizer_json(text), encoding="utf-8")
    write_json(directory / "tokenizer_config.json", processors.tokenizer_settings(text))
    write_json(directory / "processor_config.json", {"processor_class": f"{kind}Processor"})
    (directory / "README.md").write_text(card.text(aligned, card.DUAL_ENCODER), encoding="utf-8")
    card.copy_notices(aligned, directory)


def _pooler(name: str, side: Side, tower: Exported) -> PoolerOutput:
    """The pooling of the tower's class; UserError for a tower that is not read by that output."""
    kind = tower.config["model_type"]
    pooler = towers.torch_class(side.tower.config).pooler
    if pooler is None:
        raise _refusal(f"the {kind} class has no pooled output")
    if tower.adapters:
        raise _refusal(f"{name}.tune={side.tune!r} puts adapters into the {name} tower")
    if tower.joined:
        raise _refusal(f"{name}.layer={side.tower.config.joined} joins several layers")
    if not tower.last_norm:
        raise _refusal(f"{name}.layer={side.layer} reads another than the tower's output")
    if pooler.dense and not _is_pooler(side.head):
        raise _refusal(
            f"the {kind} class pools {name}s by a dense layer and tanh, not as the {name} head"
        )
    found = getattr(side.head, "pooling", None) if name == "text" else side.pooling
    if found is not None and found != pooler.pooling:
        raise _refusal(f"{name}.pooling={found!r} is not the tower's own {pooler.pooling!r}")
    return pooler


def _unwrapped(head: nn.Module) -> nn.Module:
    return head.head if isinstance(head, flax_heads.OnPooledText) else head


def _is_pooler(head: nn.Module) -> bool:
    """Tests whether a head is a dense layer of the tower's width, tanh and a projection."""
    head = _unwrapped(head)
    mlp = isinstance(head, flax_heads.PooledMLP)
    pooler = (2, 0, "tanh", "none")
    return mlp and (head.depth, head.width, head.activation, head.norm) == pooler


def _with_pooler(
    aligned: AlignedModel, name: str, params: Any, tower: Exported
) -> Float[np.ndarray, "E d"]:
    """Adds the tower's pooler to its tensors, in place; returns the projection."""
    if name == "image" and aligned.model.standardize:
        raise _refusal("image.standardize=True changes what its pooler takes")
    if np.asarray(params["dense_1"]["bias"])[: parts.dim(aligned.model)].any():
        raise _refusal(f"the {name} head's last layer has a bias, which the projection has not")
    for part in ("kernel", "bias"):
        array = np.asarray(params["dense_0"][part], np.float32)
        to = f"pooler.dense.{'weight' if part == 'kernel' else part}"
        tower.tensors[to] = np.ascontiguousarray(array.T)
    kernel = np.asarray(params["dense_1"]["kernel"], np.float32)
    kernel = (kernel * parts.weights(aligned))[:, : parts.dim(aligned.model)]
    return np.ascontiguousarray(kernel.T)


def _linear(aligned: AlignedModel, name: str, side: Side, params: Any) -> Map:
    """The head with the statistics before it as one affine map, in f64."""
    head, width = _unwrapped(side.head), side.tower.config.width
    if isinstance(head, flax_heads.Identity):
        weight, constant = np.eye(width), np.zeros(width)
    elif isinstance(head, flax_heads.Linear):
        projection = params["projection"]
        weight = np.asarray(projection["kernel"], np.float64).T
        constant = np.asarray(projection["bias"], np.float64)
    else:
        raise _refusal(f"its {name} head is {type(head).__name__} and not linear")
    factors = np.asarray(parts.weights(aligned), np.float64)
    weight, constant = (factors * weight.T).T, factors * constant
    kept = slice(parts.dim(aligned.model))  # A prefix of the embedding is a prefix of the rows.
    weight, constant = weight[kept], constant[kept]
    if name == "image" and aligned.model.standardize:
        statistics = aligned.frozen["statistics"]
        weight = weight / np.asarray(statistics["spread"], np.float64)
        constant = constant - weight @ np.asarray(statistics["center"], np.float64)
    return weight, constant


def _move_constant(tower: Exported, pooler: PoolerOutput, affine: Map) -> Float[np.ndarray, "E d"]:
    """Moves the constant into the tower, in place; returns the projection."""
    weight, constant = affine
    shift = np.linalg.lstsq(weight, constant)[0]
    left = np.linalg.norm(weight @ shift - constant)
    if left > _LEAST_EXACT * max(np.linalg.norm(constant), 1e-30):
        raise _refusal(
            f"a head from {weight.shape[1]} to {weight.shape[0]} numbers has a bias, which the "
            "projection has not and the tower cannot take"
        )
    if constant.any():  # Adding zero would turn -0.0 into 0.0.
        name = pooler.last_bias
        tower.tensors[name] = (tower.tensors[name] + shift).astype(np.float32)
    return np.ascontiguousarray(weight, np.float32)


def _refusal(reason: str) -> UserError:
    return UserError(
        f"--format: the run cannot be a VisionTextDualEncoderModel: {reason}; write --format torch"
    )


def _encode(
    aligned: AlignedModel, directory: Path, inputs: verify.Inputs
) -> dict[str, verify.Embeddings]:
    kind, background = "VisionTextDualEncoderModel", aligned.config.data.background
    return {"dual_encoder": verify.torchs(directory, inputs, kind, background)}


DUAL_ENCODER = ExportFormat(
    name="dual_encoder",
    title="for transformers alone",
    write=write,
    encode=_encode,
    needs=TORCH_MODULES,
)
