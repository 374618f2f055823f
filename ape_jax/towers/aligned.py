"""Finished two-tower models: what their files hold beside the two towers.

A layout says which tensors stand on the towers: a projection with or without a bias, under it
perhaps a pooler (a dense layer and tanh on CLS, as BERT and ViT have it), the logit scale, and with
a sigmoid loss its bias. Known are transformers' `VisionTextDualEncoderModel`, `CLIPModel` and
`SiglipModel`, LilT's checkpoints (`convert_torch`), big_vision's two towers (LiT, SigLIP) and
open_clip's models.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ape_jax.errors import UserError
from ape_jax.towers.family import torch_classes
from ape_jax.towers.files import lilt, sections, sources
from ape_jax.towers.files.names import Tensors
from ape_jax.towers.files.peft import merge
from ape_jax.towers.finished import Aligned, Projection, Reader, Top
from ape_jax.towers.open_clip import description, layout, projections
from ape_jax.towers.text import big_vision as big_vision_text
from ape_jax.towers.tower import Kind


def is_model(spec: str) -> bool:
    """Tests whether a spec names a finished model (also a half-written one), no work directory."""
    if str(spec).startswith("hf:"):
        return True
    path = Path(os.path.expanduser(spec))
    if os.path.isfile(path):
        return path.suffix == ".npz"
    config = path / "config.json"
    if os.path.isfile(path / description.FILE):
        return True
    if not os.path.isfile(config):
        return any(path.glob("*.safetensors"))
    try:
        return "model_type" in sources.read_json(config)
    except UserError:  # The command on work directories has a sentence of its own.
        return False


def read(spec: str) -> Aligned:
    """Reads the projections and the scale of a finished model.

    Args:
      spec: a directory, `hf:org/name[@revision]` or an .npz.

    Raises:
      UserError: it is no finished model of a known layout, or a tensor is missing or unexpected.
    """
    path = sources.resolve(str(spec))
    if not path.is_dir():
        return _big_vision(sources.NpzTensors(path))
    if layout.fits(path, "text"):
        return projections.read(path)
    label = path / "config.json"
    config = sources.read_json(label)
    readers: Mapping[str, Callable[..., Aligned]] = {
        sections.DUAL_ENCODER: _dual_encoder,
        sections.LILT: _lilt,
        "clip": _clip,
        "siglip": _siglip,
    }
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in readers:
        if model_type == "ape":
            raise UserError(
                f"{label}: this is an export for PyTorch, which is not read back; load the run's "
                "directory, or export it with --format jax"
            )
        raise UserError(
            f"{label}: model_type {model_type!r} is no finished model of two towers, which are "
            f"{', '.join(sorted(readers))}; a single tower is named in image.tower or text.tower"
        )
    return readers[model_type](Reader(merge.open_weights(path)), config, str(label))


def _dual_encoder(read: Reader, config: Mapping[str, Any], label: str) -> Aligned:
    supported = {name: (c, c.pooler) for name, c in torch_classes().items() if c.pooler}
    projections: Mapping[Kind, str] = {"image": "visual_projection", "text": "text_projection"}
    tops: dict[Kind, Top] = {}
    unread: dict[str, np.ndarray] = {}
    for kind, name in projections.items():
        section = sections.find(config, label, kind)
        model_type = section.config.get("model_type")
        if not isinstance(model_type, str) or model_type not in supported:
            raise UserError(
                f"{section.label}: model_type is {model_type!r}, which is not supported as the "
                f"{kind} half of a VisionTextDualEncoderModel; supported are {', '.join(supported)}"
            )
        torch, pooler = supported[model_type]
        _check_pooler(section)
        dense = f"{section.prefix}pooler.dense"
        tops[kind] = Top(
            pooling=pooler.pooling,
            pooler=read.linear(dense, bias=True) if pooler.dense else None,
            projection=read.linear(name, bias=False),
        )
        own = (f"{section.prefix}{unused}" for unused in torch.unused)
        unread |= {tensor: read(tensor) for tensor in own if tensor in read.tensors.shapes}
    names = {"visual_projection.weight", "text_projection.weight", "logit_scale"}
    read.only(("vision_model.", "text_model."), names)
    return Aligned(**tops, log_scale=read.scalar("logit_scale"), bias=None, unread=unread)


def _check_pooler(section: sections.Section) -> None:
    """ViT's pooler may be of another kind, by its config."""
    width = section.config.get("hidden_size")
    for key, own in (("pooler_act", "tanh"), ("pooler_output_size", width)):
        found = section.config.get(key)
        if found is not None and found != own:
            raise UserError(f"{section.label}: {key!r} is {found!r}; only {own!r} is supported")


def _clip(read: Reader, config: Mapping[str, Any], label: str) -> Aligned:
    return Aligned(
        image=Top(pooling="cls", projection=read.linear("visual_projection", bias=False)),
        text=Top(pooling="last", projection=read.linear("text_projection", bias=False)),
        log_scale=read.scalar("logit_scale"),
        bias=None,
        unread={},
    )


def _siglip(read: Reader, config: Mapping[str, Any], label: str) -> Aligned:
    vision = config.get("vision_config")
    if isinstance(vision, Mapping) and vision.get("vision_use_head") is False:
        raise UserError(
            f"{label}: 'vision_use_head' is false, so the model gives no image embeddings; only "
            "SigLIP models with that head are supported"
        )
    return Aligned(
        image=Top(pooling="map"),
        text=Top(pooling="last", projection=read.linear("text_model.head", bias=True)),
        log_scale=read.scalar("logit_scale"),
        bias=read.scalar("logit_bias"),
        unread={},
    )


def _lilt(read: Reader, config: Mapping[str, Any], label: str) -> Aligned:
    names = tuple(read.tensors.shapes)
    read.only(
        ("visual_encoder.", "text_encoder."),
        {f"{n}_proj.{p}" for n in ("vision", "text") for p in ("weight", "bias")} | {"temp"},
    )
    temperature = read.scalar("temp")
    if temperature <= 0:
        raise UserError(f"{label}: tensor 'temp' is {temperature}; a temperature is above 0")
    return Aligned(
        image=Top(
            pooling="cls",
            projection=read.linear("vision_proj", bias=True),
            adapters=lilt.read_adapters(names, "image", read),
        ),
        text=Top(
            pooling="cls",
            projection=read.linear("text_proj", bias=True),
            adapters=lilt.read_adapters(names, "text", read),
        ),
        log_scale=np.float32(-np.log(temperature)),
        bias=None,
        unread={},
    )


def _big_vision(tensors: Tensors) -> Aligned:
    """`models/proj/image_text/two_towers.py`: `t` is the log of the inverse temperature."""
    config, _ = big_vision_text.read_config(tensors)
    text = next(p for p in big_vision_text.PREFIXES if any(n.startswith(p) for n in tensors.shapes))
    prefix, read = text.removesuffix("txt/"), Reader(tensors)
    if any(n.startswith(f"{prefix}img/pre_logits/") for n in tensors.shapes):
        raise UserError(
            f"{tensors.label}: tensor '{prefix}img/pre_logits/kernel' is of a layer under the "
            "head, which is not supported; write a model without one (rep_size=False)"
        )

    def head(side: str) -> Projection | None:
        if not any(re.match(f"{prefix}{side}/head/", n) for n in tensors.shapes):
            return None
        return read(f"{prefix}{side}/head/kernel"), read(f"{prefix}{side}/head/bias")

    return Aligned(
        image=Top(pooling="own", projection=head("img")),
        text=Top(pooling=config.pooling, projection=head("txt")),
        log_scale=read.scalar(f"{prefix}t"),
        bias=read.scalar(f"{prefix}b") if f"{prefix}b" in tensors.shapes else None,
        unread={},
    )
