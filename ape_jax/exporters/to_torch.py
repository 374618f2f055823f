"""`--format torch`: a directory for `AutoModel.from_pretrained(DIR, trust_remote_code=True)`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ape_jax.align.model import Side
from ape_jax.errors import UserError
from ape_jax.exporters import card, heads, processors, towers
from ape_jax.exporters.towers import Exported, Tensors
from ape_jax.exporters.trained import Trained
from ape_jax.towers.clip_text import ClipTextConfig

_TEMPLATES = ("modeling_ape.py", "processing_ape.py")
_CLASSES = {
    "AutoConfig": "modeling_ape.ApeConfig",
    "AutoModel": "modeling_ape.ApeModel",
    "AutoModelForZeroShotImageClassification": "modeling_ape.ApeModel",
}
_IMAGE_PROCESSOR = {"AutoImageProcessor": "processing_ape.ApeImageProcessor"}
_TOKENIZER = {"AutoTokenizer": [None, "processing_ape.ApeTokenizer"]}


def write(trained: Trained, directory: Path) -> None:
    """Fills an empty directory.

    Raises:
      UserError: for a head or a tower that torch export does not have.
    """
    config, tensors = describe(trained)
    write_tensors(directory, tensors)
    write_json(directory / "config.json", config)
    image, text = trained.model.image.tower.prepare, trained.model.text.tower.prepare
    settings = {
        "image_processor_type": "ApeImageProcessor",
        "auto_map": _IMAGE_PROCESSOR,
        "background": list(trained.config.data.background),
    }
    write_json(
        directory / "preprocessor_config.json",
        {**processors.image_settings(image.transform), **settings},
    )
    (directory / "tokenizer.json").write_text(processors.tokenizer_json(text), encoding="utf-8")
    write_json(
        directory / "tokenizer_config.json",
        {**processors.tokenizer_settings(text), "prefix": text.prefix, "auto_map": _TOKENIZER},
    )
    write_json(
        directory / "processor_config.json", {"processor_class": "VisionTextDualEncoderProcessor"}
    )
    for name in _TEMPLATES:
        shutil.copyfile(Path(__file__).with_name(name), directory / name)
    (directory / "README.md").write_text(card.text(trained, card.TORCH), encoding="utf-8")
    card.copy_notices(trained, directory)


def describe(trained: Trained) -> tuple[dict[str, Any], Tensors]:
    """The content of config.json, and all tensors by the names in `modeling_ape.py`.

    Raises:
      UserError: as `write`.
    """
    model, tensors = trained.model, {}
    described: dict[str, tuple[Exported, Any]] = {}
    for name in ("image", "text"):
        side, params, head = trained.side(name)
        tower = towers.export(side, params)
        settings, head_tensors = heads.export(side.head, _width(side), embed_width(trained), head)
        tensors |= {f"{name}_tower.{key}": value for key, value in tower.tensors.items()}
        tensors |= {f"{name}_head.{key}": value for key, value in head_tensors.items()}
        described[name] = tower, settings
    logits = trained.logits
    tensors["logit_scale"] = logits["log_scale"]
    if "bias" in logits:
        tensors["logit_bias"] = logits["bias"]
    if model.standardize:
        for key, value in trained.frozen["statistics"].items():
            tensors[key] = np.asarray(value, np.float32)
    return _config(trained, described, "bias" in logits), tensors


def _config(trained: Trained, described: Any, bias: bool) -> dict[str, Any]:
    (image, image_heads), (text, text_heads) = described["image"], described["text"]
    side, text_tower = trained.model.image, trained.model.text.tower.config
    return {
        "model_type": "ape",
        "architectures": ["ApeModel"],
        "auto_map": _CLASSES,
        "dtype": "float32",
        "embed": embed_width(trained),
        "logit_bias": bias,
        "vision_config": image.config,
        "text_config": text.config,
        "image": {
            "pooling": side.pooling,
            "prefix_tokens": side.tower.config.prefix_tokens,
            "last_norm": image.last_norm,
            "standardize": _width(side) if trained.model.standardize else 0,
            "adapters": image.adapters,
            "heads": image_heads,
        },
        "text": {
            "end_token": text_tower.eos_id if isinstance(text_tower, ClipTextConfig) else None,
            "last_norm": text.last_norm,
            "adapters": text.adapters,
            "heads": text_heads,
        },
    }


def embed_width(trained: Trained) -> int:
    """The joint width E."""
    side = trained.model.image
    return getattr(side.head, "features", _width(side))  # No head keeps the width.


def _width(side: Side) -> int:
    """The width of what the side's head takes."""
    kind = side.tower.kind
    return side.tower.config.pooled_width(side.pooling if kind == "image" else "none")


def write_tensors(directory: Path, tensors: Tensors) -> None:
    """model.safetensors.

    Raises:
      UserError: where it cannot be written.
    """
    path = directory / "model.safetensors"
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # It hides what the system said.
        raise UserError(f"--out: {path} cannot be written: {error}") from error
    path.chmod(0o644)  # It is made for the owner alone.


def write_json(path: Path, value: Any) -> None:
    """Indented JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
