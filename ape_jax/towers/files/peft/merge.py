"""Adapters that PEFT saved beside a tower's weights: LoRA, merged into the tensors it was made for.

`adapter_config.json` and `adapter_model.safetensors` change the weights they were trained on. What
is read is what `PeftModel.merge_and_unload()` gives, to f32 rounding; other kinds of adapters are
refused by name. Whatever an adapter holds beside its low-rank pairs (`modules_to_save`, biases)
takes the place of the tensor of that name.

References:
  arXiv 2106.09685 (LoRA), 2312.03732 (rank-stabilised scaling); peft 0.21, `tuners/lora/`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ape_jax.errors import UserError
from ape_jax.towers.files import hub, reading, sources
from ape_jax.towers.files.names import Shape, Tensors
from ape_jax.towers.files.peft.names import Target, targets

CONFIG, WEIGHTS = sources.ADAPTER_CONFIG, sources.ADAPTER_WEIGHTS
_MERGE = "merge it once where it was trained: model.merge_and_unload().save_pretrained(NEW_DIR)"
# Settings of LoRA that change what is added to the weights, with the values that do not.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "use_dora": (False,),
    "use_qalora": (False,),
    "use_bdlora": (None, False),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None,),
    "layer_replication": (None,),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "velora_config": (None,),
    "monteclora_config": (None,),
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal"),
}
# What decides which modules have pairs, as their tensors say themselves.
_SELECT = (
    "target_modules exclude_modules layers_to_transform layers_pattern modules_to_save "
    "rank_pattern bias r lora_bias peft_version base_model_name_or_path auto_mapping "
    "qalora_group_size ensure_weight_tying fan_in_fan_out"
)
_LARGEST_ALPHA = 1e5  # Published ones are below a thousand.
_PAIR = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.(weight|bias))?")


def open_weights(directory: Path, named: Sequence[str] = ()) -> Tensors:
    """The tensors of a directory, with an adapter that lies beside them merged.

    Args:
      directory: of a tower.
      named: names of single files that are looked for first.

    Raises:
      UserError: no weights, damaged ones, or an adapter that is not LoRA or does not fit.
    """
    tensors = sources.SafeTensors(directory, named)
    _check_quantised(directory / "config.json", tensors.integers)
    if not sources.is_there(directory / CONFIG):
        return tensors
    config = _read_config(directory / CONFIG)
    if not (directory / WEIGHTS).is_file():
        pickled = (directory / WEIGHTS).with_suffix(".bin").is_file()
        why = f"is pickled, {hub.CONVERT}" if pickled else "is missing; fetch it too"
        raise UserError(f"{directory}: {WEIGHTS} of its {CONFIG} {why}")
    adapter = sources.SafeTensors(directory, (WEIGHTS,))
    adapter.label = str(directory / WEIGHTS)
    merged = Merged(tensors, *_assign(adapter, tensors, config, str(directory / CONFIG)))
    reading.assumed(
        f"its adapter ({WEIGHTS}, LoRA on {len(merged.pairs)} modules) is merged into its weights"
    )
    return merged


def _check_quantised(path: Path, integers: Sequence[str]) -> None:
    """Raises UserError where a config says that the weights are quantised, and they are."""
    quantised = sources.optional_json(path).get("quantization_config")
    if quantised and integers:
        method = quantised.get("quant_method") if isinstance(quantised, Mapping) else quantised
        raise UserError(
            f"{path}: 'quantization_config' is of the method {str(method)[:40]!r}, by which tensor "
            f"{integers[0]!r} is packed, {sources.QUANTISED}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """The low-rank pair of one module: `up @ down * scale` is added to its weight.

    Attributes:
      target: the tensor, or its part.
      down, up: names of the pair in the adapter's file.
      bias: name of the bias of `up`, "" without one.
      scale: the factor.
      transposed: whether the product is added transposed.
    """

    target: Target
    down: str
    up: str
    bias: str = ""
    scale: float
    transposed: bool


@dataclasses.dataclass(frozen=True)
class Merged:
    """Tensors with an adapter merged into them; see names.Tensors.

    Attributes:
      base: those of the file.
      adapter: those of the adapter's file.
      pairs: by module.
      saved: name in the file -> name in the adapter, of tensors that are replaced.
    """

    base: Tensors
    adapter: Tensors
    pairs: tuple[Pair, ...]
    saved: Mapping[str, str]

    @property
    def label(self) -> str:
        """That of the file."""
        return self.base.label

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Those of the file: an adapter changes none."""
        return self.base.shapes

    def read(self, name: str) -> np.ndarray:
        """One tensor: f32 where the adapter changes it, else as it lies in the file."""
        saved = name in self.saved
        array = self.adapter.read(self.saved[name]) if saved else self.base.read(name)
        own = [p for p in self.pairs if p.target.weight == name]
        biased = [p for p in self.pairs if p.bias and p.target.bias == name]
        if not own and not biased:
            return array
        array = np.array(array, np.float32)
        for pair in own:
            self._part(array, pair)[...] += self._delta(pair, self._part(array, pair).shape)
        for pair in biased:
            array += self._f32(pair.bias) * np.float32(pair.scale)
        return array

    def _f32(self, name: str) -> Float32[np.ndarray, "..."]:
        return np.asarray(self.adapter.read(name), np.float32)

    def _part(self, array: np.ndarray, pair: Pair) -> np.ndarray:
        """The part of a fused tensor that belongs to the module: rows, as torch splits them."""
        rows = len(array) // pair.target.parts
        return array[pair.target.part * rows : (pair.target.part + 1) * rows]

    def _delta(self, pair: Pair, shape: Shape) -> Float32[np.ndarray, "..."]:
        down, up = self._f32(pair.down), self._f32(pair.up)
        if down.ndim == 4:  # Of a convolution: `up` is one pixel.
            product = np.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
        else:
            product = up @ down
        product = (product.T if pair.transposed else product) * np.float32(pair.scale)
        if product.shape != shape:
            raise UserError(
                f"{self.adapter.label}: {pair.down} and {pair.up} make {list(product.shape)}, and "
                f"{pair.target.weight} has {list(shape)}; take the weights it was trained on"
            )
        return product


def _read_config(path: Path) -> Mapping[str, Any]:
    config = sources.read_json(path)
    kind = config.get("peft_type")
    if kind != "LORA":
        found = (
            "no adapter of PEFT" if kind is None else f"an adapter of the kind {str(kind)[:40]!r}"
        )
        raise UserError(f"{path} is {found}, and only LoRA is merged here; {_MERGE}")
    for key, values in _PLAIN.items():
        value = config.get(key)
        if value is not None and not any(value is v or value == v for v in values):
            raise UserError(f"{path}: {key!r} is {repr(value)[:60]}, which is not merged; {_MERGE}")
    for key in _SELECT.split():
        config.get(key)  # Read, since the tensors say it themselves.
    return config


def _number(config: Mapping[str, Any], key: str, value: Any, label: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{label}: {key!r} holds {repr(value)[:40]}; write a number")
    return float(value)


def _flag(config: Mapping[str, Any], key: str, label: str) -> bool:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{label}: {key!r} holds {repr(value)[:40]}; write true or false")
    return value is True


def _assign(
    adapter: Tensors, tensors: Tensors, config: Mapping[str, Any], label: str
) -> tuple[Tensors, tuple[Pair, ...], dict[str, str]]:
    """Finds the tensor of the file for each tensor of the adapter."""
    modules: dict[str, dict[str, str]] = {}
    saved: dict[str, str] = {}
    for name in adapter.shapes:
        short = re.sub(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)", "", name)
        short = short.removeprefix("base_model.model.")
        pair = _PAIR.fullmatch(short)
        if pair is None and ".lora_" in short:
            raise UserError(f"{adapter.label}: {name} belongs to no LoRA that is merged; {_MERGE}")
        if pair is None:
            saved[short] = name
        else:
            key = f"{pair[2] or ''}{pair[3]}{'.bias' if pair[4] == 'bias' else ''}"
            modules.setdefault(pair[1], {})[key] = name
    found = targets([*modules], [*saved], tensors.shapes, adapter.label)
    pairs = tuple(
        _pair(module, parts, found.modules[module], adapter, config, label)
        for module, parts in modules.items()
        if module in found.modules
    )
    replaced = {
        found.tensors[short]: name for short, name in saved.items() if short in found.tensors
    }
    for file, name in replaced.items():
        if tuple(adapter.shapes[name]) != tuple(tensors.shapes[file]):
            raise UserError(
                f"{adapter.label}: {name} is {list(adapter.shapes[name])}, and {file} of the "
                f"weights is {list(tensors.shapes[file])}; take the weights it was trained on"
            )
    return adapter, pairs, replaced


def _pair(
    module: str,
    parts: Mapping[str, str],
    target: Target,
    adapter: Tensors,
    config: Mapping[str, Any],
    label: str,
) -> Pair:
    embedding = "embedding_A" in parts
    lead = "embedding_" if embedding else ""
    if f"{lead}A" not in parts or f"{lead}B" not in parts:
        raise UserError(f"{adapter.label}: {module} has one half of its LoRA; fetch the file again")
    down, up = parts[f"{lead}A"], parts[f"{lead}B"]
    a, b = adapter.shapes[down], adapter.shapes[up]
    if len(a) < 2 or len(a) != len(b) or b[1] != a[0]:
        raise UserError(
            f"{adapter.label}: {down} is {list(a)} and {up} is {list(b)}, which do not multiply; "
            "save the adapter again from gathered parameters"
        )
    alphas = config.get("alpha_pattern")
    alphas = {} if alphas is None else alphas
    if not isinstance(alphas, Mapping):
        raise UserError(f"{label}: 'alpha_pattern' holds {repr(alphas)[:60]}; write an object")
    alpha = next(
        (value for pattern, value in dict(alphas).items() if _matches(pattern, module, label)),
        config.get("lora_alpha", 8),
    )
    alpha = _number(config, "lora_alpha", alpha, label)
    if abs(alpha) > _LARGEST_ALPHA:
        raise UserError(f"{label}: 'lora_alpha' holds {alpha:g}; write the one it was trained with")
    stabilised, fan = (_flag(config, key, label) for key in ("use_rslora", "fan_in_fan_out"))
    rank = max(math.sqrt(a[0]) if stabilised else a[0], 1)
    return Pair(
        target=target,
        down=down,
        up=up,
        bias=parts.get("B.bias", ""),
        scale=alpha / rank,
        transposed=embedding or fan,
    )


def _matches(pattern: str, module: str, label: str) -> bool:
    """Whether a key of `alpha_pattern` means a module, as PEFT reads it."""
    # A repeated group can take for ever to match, and the file is not ours.
    if len(pattern) > 200 or re.search(r"\)\s*[*+?{]", pattern):
        raise UserError(f"{label}: 'alpha_pattern' {pattern[:60]!r} is too involved; {_MERGE}")
    try:
        return re.match(rf"(.*\.)?({pattern})$", module) is not None
    except re.error as e:
        raise UserError(f"{label}: 'alpha_pattern' {pattern[:60]!r} is no pattern ({e})") from e
