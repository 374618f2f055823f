"""Models of transformers, read from a directory: only weights that are all there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError
from ape_jax.towers.torch import libraries

_POOLER = "pooler"
_WHOLE = ("t5gemma",)  # AutoModelForTextEncoding takes none that has a decoder, AutoModel no other.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model of transformers, or the part of one that encodes one kind of input.

    Attributes:
      model: the module.
      config: of the whole model.
      pools: whether its own pooler has weights in the file; without them they would be random.
    """

    model: Any
    config: Any
    pools: bool


def load(spec: str, path: Path, kind: str, *, code: bool) -> Loaded:
    """Reads the encoder of images or of texts out of a directory.

    Args:
      spec: of the tower, for messages.
      path: the directory.
      kind: "image" or "text"; of a model of both it is that half.
      code: whether the directory's own code may be run.

    Raises:
      UserError: transformers cannot read it, or weights are missing that would then be random.
    """
    transformers = libraries.module("hf", spec)
    with libraries.loading(spec, "transformers cannot read its config.json"):
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=code)
    kinds: Any = transformers.AutoModel
    decodes = config.model_type in _WHOLE and config.is_encoder_decoder
    if kind == "text" and config.model_type in _text_encoders() and not decodes:
        kinds = transformers.AutoModelForTextEncoding
    with libraries.loading(spec, "transformers cannot read the model"):
        whole, info = kinds.from_pretrained(
            path,
            trust_remote_code=code,
            use_safetensors=True,
            output_loading_info=True,
            local_files_only=True,
        )
    model = _half(whole, kind)
    missing = _within(whole, model, info["missing_keys"])
    random = sorted(name for name in missing if _POOLER not in name.split("."))
    wrong = sorted(str(entry) for entry in info.get("mismatched_keys", ()))
    if random or wrong:
        what = f"lacks the tensor {random[0]!r}" if random else f"has other shapes: {wrong[0]}"
        more = f" and {len(random) - 1} others" if len(random) > 1 else ""
        raise UserError(
            f"tower {spec!r} {what}{more}, which transformers would fill with random numbers; name "
            "the directory of a model whose weights are all there"
        )
    return Loaded(model=model, config=config, pools=not missing)


def _text_encoders() -> set[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

    return set(MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES)


def _half(whole: Any, kind: str) -> Any:
    """The part of a model that encodes images or texts."""
    if kind == "image":
        return whole.get_encoder(modality="image")
    for name in ("text_model", "text_encoder"):
        if hasattr(whole, name):
            return getattr(whole, name)
    return whole.get_encoder() if getattr(whole.config, "is_encoder_decoder", False) else whole


def _within(whole: Any, part: Any, names: Any) -> list[str]:
    """The names that are parameters or buffers of the part."""
    own = {id(tensor) for tensor in (*part.parameters(), *part.buffers())}
    found = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
    return [name for name in names if name not in found or id(found[name]) in own]
