"""`--format torch`: a directory for `AutoModel.from_pretrained(DIR, trust_remote_code=True)`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ape_jax.exporters import card, heads, processors, towers
from ape_jax.exporters.files import write_json, write_tensors
from ape_jax.exporters.towers import Exported, Tensors
from ape_jax.exporters.trained import Trained, width

_MODELING = "modeling_ape.py"
_CLASSES = {
    "AutoConfig": "modeling_ape.ApeConfig",
    "AutoModel": "modeling_ape.ApeModel",
    "AutoModelForZeroShotImageClassification": "modeling_ape.ApeModel",
}
# For sentence-transformers: the model's own two methods, which end at unit length.
_MODULE = {
    "idx": 0,
    "name": "0",
    "path": "",
    "type": "sentence_transformers.base.modules.transformer.Transformer",
}
_MODALITIES = {
    "transformer_task": "feature-extraction",
    "modality_config": {
        "text": {"method": "get_text_features", "method_output_name": None},
        "image": {"method": "get_image_features", "method_output_name": None},
    },
    "module_output_name": "sentence_embedding",
}


def write(trained: Trained, directory: Path) -> None:
    """Fills an empty directory.

    Raises:
      UserError: for a head or a tower that torch export does not have.
    """
    config, tensors = describe(trained)
    write_tensors(directory / "model.safetensors", tensors)
    write_json(directory / "config.json", config)
    shutil.copyfile(Path(__file__).with_name(_MODELING), directory / _MODELING)
    processors.write(trained, directory)
    write_json(directory / "modules.json", [_MODULE])
    write_json(directory / "sentence_bert_config.json", _MODALITIES)
    write_json(
        directory / "config_sentence_transformers.json",
        {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"},
    )
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
        settings, head_tensors = heads.export(side.head, width(side), trained.embed, head)
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
    side = trained.model.image
    return {
        "model_type": "ape",
        "architectures": ["ApeModel"],
        "auto_map": _CLASSES,
        "dtype": "float32",
        "embed": trained.embed,
        "logit_bias": bias,
        "vision_config": image.config,
        "text_config": text.config,
        "image": {
            "pooling": side.pooling,
            "prefix_tokens": side.tower.config.prefix_tokens,
            "last_norm": image.last_norm,
            "standardize": width(side) if trained.model.standardize else 0,
            "adapters": image.adapters,
            "heads": image_heads,
        },
        "text": {
            "end_token": text.end_token,
            "last_norm": text.last_norm,
            "adapters": text.adapters,
            "heads": text_heads,
        },
    }
