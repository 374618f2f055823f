"""sentence-transformers' folders: `modules.json` read in order, and the settings of its modules.

A folder lists modules: a Transformer, which is the tower itself, in the folder or below it; a
Pooling; and what follows it, Dense, LayerNorm and Normalize (sentence-transformers 6.2,
`base/model.py` and `modules/`). Its older folders differ in names only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ape_jax.config import poolings
from ape_jax.errors import UserError
from ape_jax.towers.files import irrelevant, reading, sources

MODULES = "modules.json"
_WHOLE = "config_sentence_transformers.json"
# The settings of a Transformer, the first that is there and not empty.
_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# sentence-transformers' names of modes: of one switch each, in its order, and of the newer key.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_MODES = {"mean_sqrt_len_tokens": "mean_sqrt_len", "lasttoken": "last"}
HUB_OPTIONS = (
    *("trust_remote_code", "local_files_only", "revision", "subfolder", "cache_dir", "token"),
    *("use_auth_token", "use_fast", "force_download", "code_revision", "config"),
)
"""Options of `from_pretrained` on where files are from and what code may run."""
_HOW_IT_RUNS = ("attn_implementation", "dtype", "torch_dtype", "device_map", "use_safetensors")
_READ = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize")
_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
_LARGEST = 2**20  # Of a vector's width; a damaged file must not be believed.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A module behind the pooling.

    Attributes:
      kind: a dense layer, a layer norm, or a division by the length.
      path: its folder, below the one of modules.json.
      width: of what it gives.
      activation: torch's class, of a dense layer.
      bias: a dense layer has one.
      residual: of a dense layer: "same" adds what it takes, "dense" a linear map of that.
    """

    kind: Literal["dense", "norm", "unit"]
    path: str
    width: int
    activation: str = "Identity"
    bias: bool = True
    residual: Literal["", "same", "dense"] = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """A pooling and what follows it.

    Attributes:
      pooling: see `config.poolings`.
      layers: the modules behind it, in order.
      width: of the vector.
      without_prompt: the tokens of the prompt are left out of the pooling.
      skip: how many that are.
    """

    pooling: str
    layers: tuple[Layer, ...]
    width: int
    without_prompt: bool = False
    skip: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Modules:
    """A folder of sentence-transformers.

    Attributes:
      root: the folder.
      transformer: the folder of the tower itself.
      settings: of the Transformer, `sentence_bert_config.json`; {} without.
      pooling: the joined modes; "" where there is no Pooling.
      without_prompt: as for `Head`.
      layers: the modules behind the pooling, but for a Normalize at the end.
      unit: whether there is one at the end.
      dim: how many numbers of a vector are kept, `truncate_dim`; 0 is all.
    """

    root: Path
    transformer: Path
    settings: Mapping[str, Any]
    pooling: str = ""
    without_prompt: bool = False
    layers: tuple[Layer, ...] = ()
    unit: bool = False
    dim: int = 0

    def head(self, width: int) -> Head | None:
        """The part behind a tower's tokens; None where it is a pooling without parameters.

        Args:
          width: of the tower.
        """
        if not self.layers and not self.without_prompt:
            return None
        pooled = width * len(poolings.parts(self.pooling))
        for layer in self.layers:
            if layer.kind == "norm" and layer.width != pooled:
                raise UserError(
                    f"{self.root / layer.path}: a LayerNorm of {layer.width} numbers follows "
                    f"vectors of {pooled}; fetch the folder again"
                )
            pooled = layer.width or pooled
        return Head(
            pooling=self.pooling,
            layers=self.layers,
            width=pooled,
            without_prompt=self.without_prompt,
        )


def find(directory: Path) -> Modules | None:
    """What sentence-transformers' files say of a tower's folder; None where there are none.

    Args:
      directory: that of the tower's config.json: where modules.json lies, or a folder below it.

    Raises:
      UserError: for files that are damaged, or modules that are not read here.
    """
    if sources.is_there(directory / MODULES):
        found = read(directory)
        return found if found.transformer == directory else None
    for root in list(directory.absolute().parents)[:2]:
        if sources.is_there(root / MODULES) and _is_its_tower(root, directory.absolute()):
            return read(root)
    return _without_modules(directory)


def _is_its_tower(root: Path, directory: Path) -> bool:
    try:
        entries = _entries(root)
    except UserError:  # A file beside the tower's folder need not be the tower's.
        return False
    return bool(entries) and entries[0][0] == "Transformer" and root / entries[0][1] == directory


def folders(root: Path) -> list[str]:
    """The folders below a tower's that its modules.json names; [] without one.

    Raises:
      UserError: for a damaged modules.json.
    """
    if not sources.is_there(root / MODULES):
        return []
    return sorted({path for _, path in _entries(root) if path})


def read(root: Path) -> Modules:
    """Reads a folder that has a modules.json.

    Raises:
      UserError: as `find`.
    """
    entries = _entries(root)
    if not entries or entries[0][0] != "Transformer":
        first = entries[0][0] if entries else "nothing"
        raise _refusal(root, f"begins with {first} and not with a Transformer")
    transformer = root / entries[0][1] if entries[0][1] else root
    if not transformer.is_dir():
        raise UserError(
            f"{root / MODULES}: 'path' is {entries[0][1][:80]!r}, and there is no such folder; "
            "fetch it too"
        )
    settings = _settings(transformer)
    _check_task(transformer, settings)
    _check_changes(transformer, settings)
    pooling, without_prompt, layers = "", False, []
    for name, path in entries[1:]:
        if name == "Pooling" and not pooling and not layers:
            pooling, without_prompt = _pooling(root / path / "config.json")
        elif name in _READ[2:] and pooling:
            layers.append(_layer(root, name, path))
        elif name != "Dropout":
            raise _refusal(root, f"has the module {name}{_order(name)}")
    unit = bool(layers) and layers[-1].kind == "unit"
    while layers and layers[-1].kind == "unit":
        layers.pop()
    return Modules(
        root=root,
        transformer=transformer,
        settings=settings,
        pooling=pooling,
        without_prompt=without_prompt,
        layers=tuple(layers),
        unit=unit,
        dim=_dim(root / _WHOLE),
    )


def _dim(label: Path) -> int:
    """How many numbers `SentenceTransformer.encode` keeps of a vector; 0 is all."""
    settings = sources.optional_json(label)
    return 0 if settings.get("truncate_dim") is None else _size(label, settings, "truncate_dim")


def _order(name: str) -> str:
    return ", before or without a Pooling" if name in _READ[2:] else ""


def _refusal(root: Path, found: str) -> UserError:
    return UserError(
        f"{root / MODULES} {found}; of sentence-transformers' modules a Transformer, a Pooling and "
        f"then Dense, LayerNorm and Normalize are read; write torch:st:{root} as the tower, which "
        "runs sentence-transformers itself"
    )


def _without_modules(directory: Path) -> Modules | None:
    """A folder with a pooling's settings and no modules.json, as some are copied."""
    path = next(iter(sorted(directory.glob("*_Pooling/config.json"))), None)
    settings = _settings(directory)
    if path is None and not settings:
        return None
    pooling, without_prompt = ("", False) if path is None else _pooling(path)
    return Modules(
        root=directory,
        transformer=directory,
        settings=settings,
        pooling=pooling,
        without_prompt=without_prompt,
    )


def _entries(root: Path) -> list[tuple[str, str]]:
    """The modules of a folder in order: the class, without where it is from, and the path."""
    label = root / MODULES
    listed = sources.read_json_value(label)
    entries = []
    for entry in listed if isinstance(listed, list) else [listed]:
        kind = entry.get("type") if isinstance(entry, Mapping) else None
        path = entry.get("path", "") if isinstance(entry, Mapping) else None
        if not isinstance(kind, str) or not isinstance(path, str):
            raise UserError(f"{label}: expected a list of modules with 'type' and 'path'")
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\\" in path:
            raise UserError(f"{label}: 'path' is {path!r}; write a folder below this one")
        name = kind.rpartition(".")[2]
        if not kind.startswith("sentence_transformers."):
            reading.assumed(f"{MODULES} names {kind}, whose code is not run: read as {name}")
        entries.append((name, path))
    return entries


def _settings(transformer: Path) -> Mapping[str, Any]:
    for name in _SETTINGS:
        if settings := sources.optional_json(transformer / name):
            return settings
    return {}


def _check_task(transformer: Path, settings: Mapping[str, Any]) -> None:
    """Raises UserError for a Transformer that is not asked for the tokens of a text."""
    task = settings.get("transformer_task")
    modalities = settings.get("modality_config")
    text = modalities.get("text") if isinstance(modalities, Mapping) else None
    chat = isinstance(modalities, Mapping) and "message" in modalities
    settings.get("module_output_name")
    if task not in (None, "feature-extraction"):
        raise _refusal(transformer, f"belongs to a Transformer with the task {task!r}")
    if chat or (modalities is not None and (not isinstance(text, Mapping) or text != _TEXT)):
        raise _refusal(transformer, "belongs to a Transformer whose 'modality_config' is another")


def _check_changes(transformer: Path, settings: Mapping[str, Any]) -> None:
    """Raises UserError where the settings make another tower of config.json, and says the rest."""
    for key in ("config_args", "config_kwargs"):
        own = _changes(settings, key)
        if found := [k for k in own if not irrelevant.is_irrelevant("config.json", k, own[k])]:
            raise _refusal(transformer, f"has {key!r}, which change {', '.join(found)}")
    for key in ("model_args", "model_kwargs"):
        if found := [k for k in _changes(settings, key) if k not in _HOW_IT_RUNS]:
            reading.assumed(f"{key!r} of sentence-transformers is not read: {', '.join(found)}")


def _changes(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What an object of the settings hands to transformers, but for where files come from."""
    found = settings.get(key)
    own = found if isinstance(found, Mapping) else {}
    return {k: v for k, v in own.items() if k not in HUB_OPTIONS}


def _pooling(label: Path) -> tuple[str, bool]:
    settings = sources.read_json(label)
    for key in ("word_embedding_dimension", "embedding_dimension"):
        settings.get(key)  # That of the tower, which its config says.
    switched = [mode for key, mode in _SWITCHES.items() if _switch(label, settings, key, False)]
    mode = settings.get("pooling_mode")
    mode = (switched or "mean") if mode is None else mode
    names = [mode] if isinstance(mode, str) else mode
    known = isinstance(names, list) and all(name in _SWITCHES.values() for name in names)
    joined = "+".join(_MODES.get(name, name) for name in names) if known else ""
    if not poolings.parts(joined):
        modes = ", ".join(_SWITCHES.values())
        raise UserError(f"{label}: 'pooling_mode' is {mode!r}; write one of {modes}, or a list")
    return joined, not _switch(label, settings, "include_prompt", True)


def _switch(label: Path, settings: Mapping[str, Any], key: str, default: bool) -> bool:
    value = settings.get(key)
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{label}: {key!r} is {str(value)[:60]!r}; write true or false")
    return default if value is None else value


def _layer(root: Path, name: str, path: str) -> Layer:
    label = root / path / "config.json"
    settings = sources.optional_json(label)
    for key in ("module_input_name", "module_output_name"):
        if settings.get(key) not in (None, "sentence_embedding"):
            raise _refusal(root, f"has the module {name} on {settings[key]!r}")
    if name == "Normalize":
        return Layer(kind="unit", path=path, width=0)
    width = _size(label, settings, "dimension" if name == "LayerNorm" else "out_features")
    if name == "LayerNorm":
        return Layer(kind="norm", path=path, width=width)
    residual = _switch(label, settings, "use_residual", False)
    same = residual and _size(label, settings, "in_features") == width
    return Layer(
        kind="dense",
        path=path,
        width=width,
        activation=_activation(root, settings.get("activation_function")),
        bias=_switch(label, settings, "bias", True),
        residual=("same" if same else "dense") if residual else "",
    )


def _activation(root: Path, named: Any) -> str:
    """The class of an activation; sentence-transformers takes tanh for one that is not torch's."""
    if isinstance(named, str) and named.startswith("torch."):
        return named.rpartition(".")[2]
    if named is not None:
        reading.assumed(f"the activation {named!r} is not torch's, so tanh is taken for it")
    return "Tanh"


def _size(label: Path, settings: Mapping[str, Any], key: str) -> int:
    value = settings.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST:
        raise UserError(f"{label}: {key!r} is {value!r}; write a whole number from 1 to {_LARGEST}")
    return value
