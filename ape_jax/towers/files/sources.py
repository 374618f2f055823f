"""Sources of towers: a spec -> a directory or .npz -> named arrays. Nothing is unpickled.

Shapes are read from headers; a tensor's bytes are read only after its name and shape have been
found right, so what a file can make us allocate is bounded by the config it came with and by its
own size.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes  # also registers "bfloat16" with numpy, which safetensors relies on
import numpy as np

from ape_jax.errors import UserError
from ape_jax.storage import checksums, files
from ape_jax.towers.files import adapter_base, hub, reading

INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files in which PEFT saves an adapter (`peft/merge.py`)."""
MAX_JSON_BYTES = 64 << 20
QUANTISED = (
    "which is quantised; take the model's original weights, or where transformers can dequantize "
    "them, save those: model.dequantize(), then model.save_pretrained(NEW_DIR)"
)
# By safetensors' names. Weights of other types, 8 bits or packed, mean nothing without a scale.
_FLOATS = ("F64", "F32", "F16", "BF16")
_PACKED = re.compile(r"(.+\.)?(weight|qweight|weight_packed|kernel)")


def resolve(spec: str) -> Path:
    """The directory or .npz file of a spec, downloaded or made if need be.

    Args:
      spec: `hf:org/name[@revision]`, `demo:NAME`, a directory or an .npz file.

    Raises:
      UserError: it is none of these, does not exist, or is an export with a file that is not as it
        was written.
    """
    if not isinstance(spec, str) or not spec:
        raise UserError(f"tower {spec!r}: write hf:org/name, demo:NAME, a directory or an .npz")
    if spec.startswith("hf:"):
        return _with_base(hub.snapshot(spec))
    if spec.startswith("demo:"):
        from ape_jax.demo.towers import assets

        return Path(assets.tower_dir(spec.removeprefix("demo:")))
    path = Path(os.path.expanduser(spec))
    if os.path.isdir(path):  # Which fails on no name.
        checksums.check(path)
        return _with_base(path)
    if os.path.isfile(path) and path.suffix == ".npz":
        return path
    found = "is a file of another kind" if os.path.exists(path) else "does not exist"
    shown = spec if len(spec) <= 200 else f"{spec[:197]}..."
    raise UserError(
        f"tower {shown!r} {found}; write hf:org/name, demo:NAME, a directory with config.json and "
        "model.safetensors, or a big_vision .npz"
    )


def check_digest(spec: str, digest: str) -> None:
    """Compares the digest of weights that were read with what is known of them.

    Args:
      spec: as for `resolve`.
      digest: of the tensors.

    Raises:
      UserError: they are others.
    """
    if spec.startswith("demo:"):
        from ape_jax.demo.towers import assets

        assets.check_loaded(spec.removeprefix("demo:"), digest)


def _with_base(directory: Path) -> Path:
    """The directory; where it holds an adapter alone, over the model it was trained on."""
    path = directory / ADAPTER_CONFIG
    own = [p for p in directory.glob("*.safetensors") if p.name != ADAPTER_WEIGHTS]
    if own or not is_there(path) or is_there(directory / INDEX):
        return directory
    config = read_json(path)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    remedy = "write the directory or hub name of the model that the adapter was trained on"
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}: 'base_model_name_or_path' is {name!r}; {remedy}")
    places = (Path(os.path.expanduser(name)), directory / name)
    base = next((p for p in places if os.path.isdir(p)), None)
    if base is None and hub.is_name(name):
        base = hub.download(name, name, revision if isinstance(revision, str) else None)
    if base is None:
        raise UserError(
            f"{path}: 'base_model_name_or_path' is {name[:200]!r}, which is neither a directory "
            f"nor a name on the Hugging Face hub; {remedy}"
        )
    if (base / ADAPTER_CONFIG).is_file() or base.resolve() == directory.resolve():
        raise UserError(f"{path}: 'base_model_name_or_path' is itself an adapter; {remedy}")
    reading.assumed(f"it holds an adapter alone; its weights are those of {name}")
    return adapter_base.overlay(directory, base)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, which remembers what is asked of it (`reading.Asked`).

    Raises:
      UserError: no such file, too large, not JSON, or not an object.
    """
    value = read_json_value(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {files.json_kind(value)}; it must hold an object")
    return reading.asked(path, value)


def read_json_value(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      UserError: no such file, too large, or not JSON.
    """
    check_file(path)
    try:
        text = files.read_text(path, most=MAX_JSON_BYTES)
        return files.parse_json(text, str(path), kind=object, pairs=partial(_object, path))
    except UserError as error:
        raise UserError(f"{error}; fetch the file again") from None


def optional_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file as `read_json`; {} where nothing stands in its place."""
    return read_json(path) if is_there(path) else {}


def is_there(path: Path) -> bool:
    """Whether anything stands in the place of a file; what is no file is said when it is read."""
    try:
        return os.path.lexists(path)
    except ValueError:  # No file has such a name.
        return False


def _object(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted(key for key in values if keys.count(key) > 1)
        reading.assumed(f"{path.name} has {', '.join(twice)} twice; the last is taken")
    return values


def check_file(path: Path) -> None:
    """Raises UserError where a path is no regular file; to open a pipe would wait for ever."""
    if os.path.islink(path) and not os.path.exists(path):
        raise UserError(f"{path} is a broken link and no file; put the file itself there")
    try:
        files.check(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; the directory of a tower needs it") from None


class SafeTensors:
    """The tensors of a directory's safetensors file or shards; see names.Tensors.

    Args:
      directory: the directory.
      named: names of single files that are looked for first.
    """

    def __init__(self, directory: Path, named: Sequence[str] = ()):
        self.label = str(directory)
        self._files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.integers: tuple[str, ...] = ()
        """Names of tensors that are no floats, without buffers of positions."""
        own = [directory / name for name in named if (directory / name).is_file()]
        for path in own[:1] or weight_files(directory):
            for name, (shape, dtype) in safetensors_header(path).items():
                if name in self._files:
                    raise UserError(f"{path}: tensor {name!r} is also in {self._files[name]}")
                if dtype not in _FLOATS and (dtype[0] == "F" or _PACKED.fullmatch(name)):
                    raise UserError(f"{path}: tensor {name!r} is {dtype}, {QUANTISED}")
                if dtype not in _FLOATS and not name.endswith("_ids"):
                    self.integers += (name,)
                self._files[name], self.shapes[name] = path, shape

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the file's dtype."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._files[name], "np") as f:
                return f.get_tensor(name)
        except (SafetensorError, OSError, TypeError, ValueError) as e:
            raise UserError(
                f"{self._files[name]}: tensor {name!r} is unreadable ({_reason(e)}); fetch it again"
            ) from e


def weight_files(directory: Path) -> list[Path]:
    """model.safetensors, the shards that its index lists, or the one .safetensors there is."""
    index = directory / INDEX
    single = directory / "model.safetensors"
    if single.is_file():
        return [single]
    if is_there(index):
        return _shards(index)
    if os.path.lexists(single):  # As a directory, a pipe or a broken link.
        check_file(single)
    others = sorted(p for p in directory.glob("*.safetensors") if p.is_file())
    others = [p for p in others if p.name != ADAPTER_WEIGHTS]
    if len(others) == 1:
        return others
    if others:
        raise UserError(
            f"{directory} holds {len(others)} .safetensors files and no {index.name} that says "
            "how they belong together; add it, or keep one and call it model.safetensors"
        )
    pickled = sorted(p.name for p in directory.glob("*") if p.suffix in hub.PICKLED)
    if pickled:
        raise UserError(f"{directory} holds its weights in {pickled[0]}, {hub.CONVERT}")
    raise UserError(f"{directory} holds no model.safetensors; a tower needs one")


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise UserError(f"{index}: 'weight_map' must be an object of tensor name: file name")
    shards = []
    for name in sorted({str(v) for v in weight_map.values()}):
        # A shard lies beside its index; anything else would read outside the directory.
        if PurePosixPath(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise UserError(f"{index}: shard {name!r} must be a .safetensors file beside the index")
        if not (index.parent / name).is_file():
            raise UserError(f"{index} lists {name}, which is not there; download it too")
        shards.append(index.parent / name)
    return shards


def safetensors_header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and type of each tensor of a file, by safetensors' names ("F32").

    Raises:
      UserError: it is no whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    found = {}
    try:
        with safe_open(path, "np") as f:
            for name in f.keys():
                tensor = f.get_slice(name)
                found[name] = tuple(tensor.get_shape()), tensor.get_dtype()
    except (SafetensorError, OSError, ValueError) as e:
        raise UserError(
            f"{path} is no whole safetensors file ({_reason(e)}); fetch it again"
        ) from e
    return found


class NpzTensors:
    """The tensors of an .npz; see names.Tensors."""

    def __init__(self, path: Path):
        self.label = str(path)
        self._path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._entries: dict[str, str] = {}
        try:
            with files.opened(path) as file, zipfile.ZipFile(file) as archive:
                for info in archive.infolist():
                    name = info.filename.removesuffix(".npy")
                    if name in self._entries:
                        raise UserError(f"{path}: entry {name!r} stands in it twice; save it again")
                    self._entries[name] = info.filename
                    self.shapes[name] = self._header(archive, info, name)
        except UserError:
            raise
        except Exception as e:  # zipfile and what unpacks its entries raise of many types.
            raise UserError(f"{path} is no whole .npz file ({_reason(e)}); fetch it again") from e

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
            except Exception as e:
                raise UserError(
                    f"{self._path}: entry {name!r} is no numpy array ({_reason(e)}); save it again"
                ) from e
            # big_vision saves bfloat16 as raw two-byte items.
            plain = dtype.kind in "fiub" or dtype == np.dtype("V2")
            if dtype.hasobject or not plain:
                raise UserError(
                    f"{self._path}: entry {name!r} holds {dtype} (pickled objects or text), which "
                    "is never read; save plain arrays"
                )
            if info.file_size - f.tell() != dtype.itemsize * int(np.prod(shape, dtype=object)):
                raise UserError(
                    f"{self._path}: entry {name!r} is not as long as its header says; save it again"
                )
        return shape

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the file's dtype; it unpacks to no more than its shape says."""
        try:
            with files.opened(self._path) as file, zipfile.ZipFile(file) as archive:
                with archive.open(self._entries[name]) as entry:
                    array = np.lib.format.read_array(entry, allow_pickle=False)
        except Exception as e:  # As above.
            raise UserError(
                f"{self.label}: tensor {name!r} is unreadable ({_reason(e)}); fetch the file again"
            ) from e
        return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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
