"""From `torch:LIBRARY:NAME` to a directory, and what of it features depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ape_jax.config.outside import TORCH
from ape_jax.errors import UserError
from ape_jax.storage import files as storage
from ape_jax.towers.files import hub, reading, sources
from ape_jax.towers.torch import libraries

_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_CODE = ("*.py",)
_NOTICES = ("NOTICE*", "LICENSE*", "LICENCE*")
# Copies of the weights for other programs, which nobody here reads.
_NOT = ("onnx/*", "openvino/*", "coreml/*", "original/*")
_TIMM_OWNER = "timm"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """A `torch:` spec, taken apart.

    Attributes:
      written: as the user wrote it.
      library: "hf", "timm" or "st".
      name: a directory, `org/name[@revision]`, or timm's name of a model.
    """

    written: str
    library: str
    name: str


def parse(spec: str) -> Spec:
    """Takes a spec apart.

    Example:
      >>> parse("torch:hf:microsoft/swin-tiny-patch4-window7-224").library
      'hf'

    Raises:
      UserError: for another library, or no name.
    """
    library, _, name = spec.removeprefix(TORCH).partition(":")
    if library not in libraries.LIBRARIES or not name:
        raise UserError(
            f"tower {spec!r}: write torch:hf:NAME, torch:timm:NAME or torch:st:NAME with the name "
            "of a model or a directory"
        )
    return Spec(written=spec, library=library, name=name)


def at(spec: str, directory: Path) -> str:
    """The spec of a tower whose files lie elsewhere.

    Example:
      >>> at("torch:hf:org/name", Path("towers/image"))
      'torch:hf:towers/image'

    Args:
      spec: `torch:LIBRARY:NAME`.
      directory: where the files are.
    """
    return f"{TORCH}{parse(spec).library}:{directory}"


def bring(spec: str, to: Path, *, code: bool) -> None:
    """Copies the files of a tower, and what must stay with its weights.

    Args:
      spec: of the tower.
      to: a directory that is made.
      code: as for `resolve`.

    Raises:
      UserError: as `resolve`.
    """
    source = resolve(parse(spec), code=code)
    notices = {file for name in _NOTICES for file in source.glob(name) if file.is_file()}
    for file in {*files(source, code=code), *notices}:
        copy = to / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def resolve(spec: Spec, *, code: bool = False) -> Path:
    """The directory of a tower, downloaded if need be.

    Args:
      spec: the tower.
      code: whether Python files are wanted, too.

    Raises:
      UserError: where it is none, holds its weights in a format that can run code, or brings code.
    """
    path = Path(os.path.expanduser(spec.name))
    if not os.path.isdir(path):
        path = _downloaded(spec, code)
    _check_weights(spec, path)
    if not code:
        _check_code(spec, path)
    return path


def _downloaded(spec: Spec, code: bool) -> Path:
    name = spec.name
    if spec.library == "timm" and "/" not in name:
        name = _timm_repository(spec)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?", name):
        raise UserError(
            f"tower {spec.written!r}: {spec.name!r} is no directory; write one, or org/name for a "
            "model of the Hugging Face hub"
        )
    patterns = (*_FILES, *(_CODE if code else ()))
    return hub.snapshot(f"hf:{name}", patterns, _NOT, written=spec.written)


def _timm_repository(spec: Spec) -> str:
    """Where timm's model of this name lies on the hub."""
    timm = libraries.module("timm", spec.written)
    with libraries.loading(spec.written, "timm has no model of this name"):
        config = timm.get_pretrained_cfg(spec.name)
    found = getattr(config, "hf_hub_id", None)
    if not found:
        raise UserError(
            f"tower {spec.written!r}: timm has no weights of this name; timm.list_pretrained() "
            "lists those that it has"
        )
    return f"{found}{spec.name}" if found == f"{_TIMM_OWNER}/" else found


def _check_weights(spec: Spec, path: Path) -> None:
    """Raises UserError for weights in a format that can run code when it is read."""
    if any(path.rglob("*.safetensors")):
        return
    pickled = sorted(file.name for file in path.rglob("*") if file.suffix in hub.PICKLED)
    if pickled:
        raise UserError(f"tower {spec.written!r} holds its weights in {pickled[0]}, {hub.CONVERT}")
    if (path / "config.json").is_file() or (path / "modules.json").is_file():
        raise UserError(f"{path} holds no *.safetensors; a tower needs its weights there")
    raise UserError(f"{path} holds no model: neither config.json nor modules.json is there")


def _check_code(spec: Spec, path: Path) -> None:
    """Raises UserError for a directory whose files say that its own code is to be run."""
    found = ""
    modules = path / "modules.json"
    if spec.library == "st" and sources.is_there(modules):
        for module in _listed(modules):
            kind = str(module.get("type", ""))
            if not kind.startswith("sentence_transformers."):
                found = f"{kind!r} in {modules.name}"
    config = path / "config.json"
    if not found and spec.library == "hf" and sources.is_there(config):
        values = sources.read_json(config)
        reading.whole(config)
        known = libraries.module("hf", spec.written).CONFIG_MAPPING
        if values.get("auto_map") and values.get("model_type") not in known:
            found = f"{values['auto_map']!r} in {config.name}"
    if found:
        raise libraries.brings_code(spec.written, found)


def _listed(modules: Path) -> Iterator[dict[str, Any]]:
    """The modules of a SentenceTransformer, as their file has them."""
    values = sources.read_json_value(modules)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise UserError(f"{modules} must hold a list of objects; fetch the file again")
    yield from values


def files(path: Path, *, code: bool = False) -> list[Path]:
    """All files that a model is made of, in the order of their names.

    Args:
      path: the directory.
      code: whether Python files are among them.
    """
    patterns = (*_FILES, *(_CODE if code else ()))
    other = {pattern.split("/")[0] for pattern in _NOT}
    found = {file for pattern in patterns for file in path.rglob(pattern) if file.is_file()}
    kept = [file for file in found if file.relative_to(path).parts[0] not in other]
    return sorted(kept, key=lambda file: file.relative_to(path).as_posix())


def digest(path: Path, *, code: bool = False) -> str:
    """Sha256 over the names and bytes of all files that a model is made of.

    Args:
      path: the directory.
      code: whether Python files are among them.
    """
    total = hashlib.sha256()
    for file in files(path, code=code):
        name = file.relative_to(path).as_posix()
        total.update(f"{name} {storage.sha256(file)}\n".encode())
    return total.hexdigest()
