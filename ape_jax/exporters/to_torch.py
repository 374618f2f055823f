"""`--format torch`: a directory for `AutoModel.from_pretrained(DIR, trust_remote_code=True)`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ape_jax.exporters import heads, parts, processors, towers, verify
from ape_jax.exporters.files import write_json, write_tensors
from ape_jax.exporters.formats import TORCH_MODULES, ExportFormat
from ape_jax.exporters.publish import card
from ape_jax.exporters.towers import Exported, Tensors
from ape_jax.runs.aligned import AlignedModel

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


def write(aligned: AlignedModel, directory: Path) -> None:
    """Fills an empty directory.

    Raises:
      UserError: for a head or a tower that torch export does not have.
    """
    config, tensors = describe(aligned)
    write_tensors(directory / "model.safetensors", tensors)
    write_json(directory / "config.json", config)
    shutil.copyfile(Path(__file__).parent / "shipped" / _MODELING, directory / _MODELING)
    processors.write(aligned, directory)
    write_json(directory / "modules.json", [_MODULE])
    write_json(directory / "sentence_bert_config.json", _MODALITIES)
    write_json(
        directory / "config_sentence_transformers.json",
        {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"},
    )
    (directory / "README.md").write_text(card.text(aligned, card.TORCH), encoding="utf-8")
    card.copy_notices(aligned, directory)


def describe(aligned: AlignedModel) -> tuple[dict[str, Any], Tensors]:
    """The content of config.json, and all tensors by the names in `modeling_ape.py`.

    Raises:
      UserError: as `write`.
    """
    tensors: Tensors = {}
    described: dict[str, tuple[Exported, Any]] = {}
    for name in ("image", "text"):
        side, params, head = parts.side(aligned, name)
        tower = towers.export(side, params)
        settings, head_tensors = heads.export(
            side.head, parts.width(side), parts.embed(aligned.model), head
        )
        tensors |= {f"{name}_tower.{key}": value for key, value in tower.tensors.items()}
        tensors |= {f"{name}_head.{key}": value for key, value in head_tensors.items()}
        described[name] = tower, settings
    logits = parts.logits(aligned)
    tensors["logit_scale"] = logits["log_scale"]
    if "bias" in logits:
        tensors["logit_bias"] = logits["bias"]
    for key, value in aligned.frozen.get("statistics", {}).items():
        tensors[key] = np.asarray(value, np.float32)
    return _config(aligned, described, "bias" in logits), tensors


def _config(aligned: AlignedModel, described: Any, bias: bool) -> dict[str, Any]:
    (image, image_heads), (text, text_heads) = described["image"], described["text"]
    side = aligned.model.image
    return {
        "model_type": "ape",
        "architectures": ["ApeModel"],
        "auto_map": _CLASSES,
        "dtype": "float32",
        "embed": parts.dim(aligned.model),
        **parts.joint_width(aligned.model),
        "logit_bias": bias,
        **({"weights": aligned.model.weights} if aligned.model.weights else {}),
        **_languages(aligned),
        "vision_config": image.config,
        "text_config": text.config,
        "image": {
            "pooling": side.pooling,
            "prefix_tokens": side.tower.config.prefix_tokens,
            "cls_tokens": list(side.tower.config.cls_tokens),
            "cls_mean": side.tower.config.cls_mean,
            "last_norm": image.last_norm,
            "layers": list(image.joined),
            "norm_twice": getattr(side.tower.config, "norm_twice", False) and image.last_norm,
            "standardize": parts.width(side) if aligned.model.standardize else 0,
            "adapters": image.adapters,
            "heads": image_heads,
        },
        "text": {
            "end_token": text.end_token,
            "last_norm": text.last_norm,
            "layers": list(text.joined),
            "adapters": text.adapters,
            "heads": text_heads,
        },
    }


def _languages(aligned: AlignedModel) -> dict[str, list[int]]:
    known, side = aligned.model.languages, aligned.model.text
    return {} if known is None else {"languages": [known.count, side.token_width]}


def _encode(
    aligned: AlignedModel, directory: Path, inputs: verify.Inputs
) -> dict[str, verify.Embeddings]:
    return {"torch": verify.torchs(directory, inputs, "AutoModel")}


TORCH = ExportFormat(
    name="torch",
    title="for transformers with the code it brings",
    write=write,
    encode=_encode,
    needs=TORCH_MODULES,
    takes_languages=True,
)
