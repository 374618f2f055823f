"""Directories of open_clip's models."""

from __future__ import annotations

from pathlib import Path

from ape_jax.errors import UserError
from ape_jax.towers.files import reading, sources
from ape_jax.towers.layout import Found, Layout
from ape_jax.towers.open_clip import description, image, text
from ape_jax.towers.tower import Kind
from ape_jax.towers.vision.timm.description import describes


def fits(path: Path, kind: Kind | None) -> bool:
    """Whether a path holds a model of open_clip that is to be read as one.

    Many directories hold the same model for transformers, or its image tower for timm, too.
    """
    if not (path / description.FILE).is_file():
        return False
    config = path / "config.json"
    if not config.is_file():
        return True
    try:
        other = sources.read_json_value(config)
    except UserError:  # Said where the file is read.
        return False
    if not isinstance(other, dict):
        return False
    if describes(other):
        return kind != "image" and kind is not None
    beside = any((path / name).is_file() for name in description.WEIGHTS)
    alone = beside and not any(path.glob("model*.safetensors"))
    return "model_type" not in other or alone


def _find(path: Path, kind: Kind | None) -> Found:
    if kind is None:
        raise UserError(
            f"{path / description.FILE} describes an image and a text tower; write kind='image' or "
            "kind='text'"
        )
    described = description.read(path)
    description.check(described.vision if kind == "image" else described.text)
    if kind == "image" or described.text.values.get("hf_model_name") is None:
        reading.whole(path / "config.json")  # It describes the model for another library.
    return image.find(described) if kind == "image" else text.find(described)


LAYOUT = Layout(name="open_clip's directory", fits=fits, find=_find)
