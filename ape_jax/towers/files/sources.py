"""Sources of towers: a spec -> a directory or .npz -> named arrays. Nothing is unpickled.

Shapes are read from headers; a tensor's bytes are read only after its name and shape have been
found right, so what a file can make us allocate is bounded by the config it came with and by its
own size.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes  # also registers "bfloat16" with numpy, which safetensors relies on
import numpy as np

from ape_jax.errors import UserError

MAX_JSON_BYTES = 64 << 20
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
HUB_NOT = ("*/*.safetensors", "onnx/*", "openvino/*", "coreml/*")
_HUB = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def resolve(spec: str) -> Path:
    """The directory or .npz file of a spec, downloaded or made if need be.

    Args:
      spec: `hf:org/name[@revision]`, `demo:NAME`, a directory or an .npz file.

    Raises:
      UserError: it is none of these, or does not exist.
    """
    if not isinstance(spec, str) or not spec:
        raise UserError(f"tower {spec!r}: write hf:org/name, demo:NAME, a directory or an .npz")
    if spec.startswith("hf:"):
        return _snapshot(spec)
    if spec.startswith("demo:"):
        from ape_jax.demo.towers import assets

        return Path(assets.tower_dir(spec.removeprefix("demo:")))
    path = Path(spec).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".npz"):
        return path
    found = "is a file of another kind" if path.exists() else "does not exist"
    raise UserError(
        f"tower {spec!r} {found}; write hf:org/name, demo:NAME, a directory with config.json and "
        "model.safetensors, or a big_vision .npz"
    )


def _snapshot(spec: str) -> Path:
    parts = _HUB.fullmatch(spec)
    if parts is None:
        raise UserError(f"tower {spec!r}: write hf:org/name or hf:org/name@revision")
    import huggingface_hub

    try:
        path = huggingface_hub.snapshot_download(
            parts[1],
            revision=parts[2],
            allow_patterns=list(HUB_FILES),
            ignore_patterns=list(HUB_NOT),
        )
    except Exception as e:  # the hub raises its own, httpx's, OSError and ValueError
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(
            f"tower {spec!r} could not be fetched from the Hugging Face hub ({reason}); check the "
            "name and the network, or write the path of a downloaded directory"
        ) from e
    return Path(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      UserError: no such file, too large, not JSON, or not an object.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; the directory of a tower needs it")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB; it is no config")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path} is not JSON ({e}); fetch the file again") from e
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}; it must hold an object")
    return value


class SafeTensors:
    """The tensors of a directory's safetensors file or shards; see names.Tensors."""

    def __init__(self, directory: Path):
        self.label = str(directory)
        self._files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in _weight_files(directory):
            for name, shape in _safetensors_shapes(path).items():
                if name in self._files:
                    raise UserError(f"{path}: tensor {name!r} is also in {self._files[name]}")
                self._files[name], self.shapes[name] = path, shape

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the file's dtype."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._files[name], "np") as f:
                return f.get_tensor(name)
        except (SafetensorError, OSError, TypeError, ValueError) as e:
            raise UserError(f"{self._files[name]}: tensor {name!r} is unreadable ({e})") from e


def _weight_files(directory: Path) -> list[Path]:
    """model.safetensors, the shards that its index lists, or the one .safetensors there is."""
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if single.is_file():
        return [single]
    if index.is_file():
        return _shards(index)
    others = sorted(directory.glob("*.safetensors"))
    if len(others) == 1:
        return others
    if others:
        raise UserError(
            f"{directory} holds {len(others)} .safetensors files and no {index.name} that says "
            "how they belong together; add it, or keep one and call it model.safetensors"
        )
    pickled = sorted(p.name for p in directory.glob("*") if p.suffix in (".bin", ".pt", ".h5"))
    if pickled:
        raise UserError(
            f"{directory} holds its weights in {pickled[0]}, a format that can run code when it "
            "is read; convert it once where you trust it: transformers.AutoModel."
            "from_pretrained(DIR).save_pretrained(NEW_DIR) writes model.safetensors"
        )
    raise UserError(f"{directory} holds no model.safetensors; a tower needs one")


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise UserError(f"{index}: 'weight_map' must be an object of tensor name: file name")
    files = []
    for name in sorted({str(v) for v in weight_map.values()}):
        # A shard lies beside its index; anything else would read outside the directory.
        if PurePosixPath(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise UserError(f"{index}: shard {name!r} must be a .safetensors file beside the index")
        if not (index.parent / name).is_file():
            raise UserError(f"{index} lists {name}, which is not there; download it too")
        files.append(index.parent / name)
    return files


def _safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as f:
            return {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}
    except (SafetensorError, OSError, ValueError) as e:
        raise UserError(f"{path} is no whole safetensors file ({e}); fetch it again") from e


class NpzTensors:
    """The tensors of an .npz; see names.Tensors."""

    def __init__(self, path: Path):
        self.label = str(path)
        self._path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    name = info.filename.removesuffix(".npy")
                    self.shapes[name] = self._header(archive, info, name)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as e:
            raise UserError(f"{path} is no whole .npz file ({e}); fetch it again") from e

    def _header(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str
    ) -> tuple[int, ...]:
        """The shape an entry's header gives, if it is an array of numbers as large as it says."""
        with archive.open(info) as f:
            try:
                version = np.lib.format.read_magic(f)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, _, dtype = read(f)
            except (ValueError, KeyError, TypeError, OverflowError) as e:
                raise UserError(f"{self._path}: entry {name!r} is no numpy array ({e})") from e
            # big_vision saves bfloat16 as raw two-byte items.
            if dtype.hasobject or dtype.kind not in "fiubV":
                raise UserError(
                    f"{self._path}: entry {name!r} holds {dtype} (pickled objects or text), which "
                    "is never read; save plain arrays"
                )
            if info.file_size - f.tell() != dtype.itemsize * int(np.prod(shape, dtype=object)):
                raise UserError(f"{self._path}: entry {name!r} is not as long as its header says")
        return shape

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the file's dtype."""
        try:
            with np.load(self._path, allow_pickle=False) as f:
                array = f[name]
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as e:
            raise UserError(f"{self.label}: tensor {name!r} is unreadable ({e})") from e
        return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array


class Digest:
    """sha256 over the tensors that are read, independent of the order they are read in."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}

    def add(self, name: str, array: np.ndarray) -> None:
        """Take in one tensor as it lies in the file."""
        head = f"{name} {array.dtype.name} {list(array.shape)}\n".encode()
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._parts[name] = hashlib.sha256(head + data.tobytes()).hexdigest()

    def hexdigest(self) -> str:
        """The digest of everything taken in so far."""
        lines = "".join(f"{self._parts[name]}\n" for name in sorted(self._parts))
        return hashlib.sha256(lines.encode()).hexdigest()
