"""Image processor and tokenizer of an export, in transformers' files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ape_jax.errors import UserError
from ape_jax.exporters import parts
from ape_jax.exporters.files import write_json
from ape_jax.images import essential
from ape_jax.images.packed import PackedTransform
from ape_jax.images.preprocessor import INTERPOLATIONS
from ape_jax.images.transforms import ImageTransform
from ape_jax.runs.aligned import AlignedModel
from ape_jax.towers.text.tokens import TextPrepare

_CODE = "processing_ape.py", "checksums_ape.py"
_ESSENTIAL = "essential_ape.py"
_IMAGE_PROCESSOR = {
    "image_processor_type": "ApeImageProcessor",
    "auto_map": {"AutoImageProcessor": "processing_ape.ApeImageProcessor"},
}
_TOKENIZER = {"AutoTokenizer": [None, "processing_ape.ApeTokenizer"]}


def write(aligned: AlignedModel, directory: Path) -> None:
    """Writes what transformers' `AutoProcessor` loads, and the code that it runs.

    Raises:
      UserError: as `tokenizer_settings`.
    """
    image, text = aligned.model.image.tower.prepare, aligned.model.text.tower.prepare
    images = {**image_settings(image.transform), **own_settings(image.transform)}
    images |= _IMAGE_PROCESSOR
    images["background"] = list(aligned.config.data.background)
    texts = {**tokenizer_settings(text), "prefix": text.prefix, "auto_map": _TOKENIZER}
    texts |= parts.languages(aligned.model)
    write_json(directory / "preprocessor_config.json", images)
    write_json(directory / "tokenizer_config.json", texts)
    (directory / "tokenizer.json").write_text(tokenizer_json(text), encoding="utf-8")
    write_json(
        directory / "processor_config.json", {"processor_class": "VisionTextDualEncoderProcessor"}
    )
    copy_code(directory)


def copy_code(directory: Path) -> None:
    """Copies the code of the image processor and the tokenizer; it imports nothing of ours."""
    for name in _CODE:
        shutil.copyfile(Path(__file__).parent / "shipped" / name, directory / name)
    shutil.copyfile(essential.__file__, directory / _ESSENTIAL)


def image_settings(transform: ImageTransform) -> dict[str, Any]:
    """The content of a preprocessor_config.json that says the same as a transform.

    Raises:
      UserError: for packed images, which no processor of an export makes.
    """
    if isinstance(transform, PackedTransform):
        raise UserError(
            "--format: images of any shape are packed for this image tower, which the processors "
            "of exports do not do; write --format jax"
        )
    edge = {"height": transform.resize_size, "width": transform.resize_size}
    return {
        "do_convert_rgb": True,
        "do_resize": transform.resize != "none",
        "size": {"shortest_edge": transform.resize_size}
        if transform.resize == "shortest"
        else edge,
        "resample": int(INTERPOLATIONS[transform.interpolation]),
        "do_center_crop": True,
        "crop_size": {"height": transform.size, "width": transform.size},
        "do_rescale": True,
        "rescale_factor": transform.rescale,
        "do_normalize": True,
        "image_mean": list(transform.mean),
        "image_std": list(transform.std),
    }


def own_settings(transform: ImageTransform) -> dict[str, Any]:
    """What our own processor knows beside that: crops and edges of timm and open_clip."""
    return {
        "rounding": transform.rounding,
        "longest": transform.resize == "longest",
        "fill": list(transform.fill),
    }


def tokenizer_json(prepare: TextPrepare) -> str:
    """The content of a tokenizer.json: the tower's, with the settings it was read with."""
    return prepare.encode.backend.to_str(pretty=True)


def tokenizer_settings(prepare: TextPrepare) -> dict[str, Any]:
    """The content of the tokenizer_config.json beside it; a prefix is not in it.

    Raises:
      UserError: where no token can stand for padding.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": prepare.max_length,
        "pad_token": _pad_token(prepare),
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _pad_token(prepare: TextPrepare) -> str:
    """A token that no text is made of: what is declared for padding becomes a token of its own.

    Which one it is makes no difference, since padding is masked.
    """
    backend = prepare.encode.backend
    special = {added["content"] for added in json.loads(backend.to_str())["added_tokens"]}
    for index, token in _candidates(prepare):
        if token in special or index not in backend.encode(token, add_special_tokens=False).ids:
            return token
    raise UserError(
        f"the tokenizer's padding token {backend.id_to_token(prepare.pad_id)!r} is a word as well; "
        "add a padding token to the text tower's tokenizer_config.json"
    )


def _candidates(prepare: TextPrepare) -> Iterator[tuple[int, str]]:
    for index in (prepare.pad_id, *prepare.after, *prepare.before):
        token = prepare.encode.backend.id_to_token(index)
        if token is not None:
            yield index, token
