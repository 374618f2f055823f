"""What a directory without a config.json is, and what to write in its place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ape_jax.errors import UserError
from ape_jax.towers.files import hub

_OTHERS: Mapping[str, str] = {
    ".gguf": "weights in llama.cpp's format",
    ".onnx": "a graph in ONNX",
    ".engine": "a compiled program of TensorRT",
    ".tflite": "a program for TensorFlow Lite",
    ".mlpackage": "a program for Core ML",
}
_MOST = 200  # Entries that are looked at, of a directory that may be anything.


def sentence(directory: Path) -> str:
    """A sentence on a directory that should be a tower's and has no config.json.

    Args:
      directory: the directory.
    """
    names = sorted(entry.name for entry, _ in zip(directory.iterdir(), range(_MOST), strict=False))
    for what in (_clip_of_sentences, _work_directory, _below, _array_file, _other_format):
        if (said := what(directory, names)) is not None:
            return said
    if "open_clip_config.json" in names:
        return (
            f"{directory} is open_clip's and holds no open_clip_model.safetensors; fetch that file "
            "too, or save it once from open_clip"
        )
    pickled = [name for name in names if name.endswith(hub.PICKLED)]
    if pickled:
        return f"{directory} holds no config.json, and its weights in {pickled[0]}, {hub.CONVERT}"
    found = f"holds {', '.join(names[:3])}" if names else "is empty"
    return (
        f"{directory} {found}, and no config.json, which a tower needs beside its weights; write "
        "the directory that transformers' save_pretrained made"
    )


def refuse(directory: Path) -> None:
    """Raises UserError for a directory without a config.json."""
    try:
        absent = not os.path.lexists(directory / "config.json")
    except OSError as e:
        raise UserError(f"{directory} cannot be read ({e.strerror}); correct the path") from e
    if absent:
        raise UserError(sentence(directory))


def is_clip_of_sentences(directory: Path) -> bool:
    """Whether a directory is a CLIP that sentence-transformers saved in a folder below."""
    return directory.is_dir() and any(directory.glob("*_CLIPModel"))


def _clip_of_sentences(directory: Path, names: list[str]) -> str | None:
    own = [name for name in names if name.endswith("_CLIPModel")]
    if not own:
        return None
    return (
        f"{directory} is a CLIP of sentence-transformers, whose two towers are in {own[0]}; write "
        f"{directory / own[0]}"
    )


def _work_directory(directory: Path, names: list[str]) -> str | None:
    if "checkpoints" not in names:
        return None
    return (
        f"{directory} is a work directory of a training and no tower; write the towers that its "
        "run was made of, or load the whole with ape_jax.load"
    )


def _below(directory: Path, names: list[str]) -> str | None:
    below = [name for name in names if (directory / name / "config.json").is_file()]
    deeper = directory / "snapshots"
    if not below and deeper.is_dir():  # A repository in the hub's cache.
        below = [f"snapshots/{p.name}" for p in sorted(deeper.iterdir()) if p.is_dir()]
    if not below:
        return None
    more = f" (there are {len(below)})" if len(below) > 1 else ""
    return (
        f"{directory} holds no config.json, but {below[0]} in it does{more}; write "
        f"{directory / below[0]}"
    )


def _array_file(directory: Path, names: list[str]) -> str | None:
    arrays = [name for name in names if name.endswith(".npz")]
    if not arrays:
        return None
    return (
        f"{directory} holds no config.json; big_vision's weights are named by their file: write "
        f"{directory / arrays[0]}"
    )


def _other_format(directory: Path, names: list[str]) -> str | None:
    for end, what in _OTHERS.items():
        own = [name for name in names if name.endswith(end)]
        if own:
            return (
                f"{directory} holds {own[0]}, {what}, from which no tower is read; write the "
                "directory of the original weights, with config.json and model.safetensors"
            )
    return None
