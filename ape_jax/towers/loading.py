"""`towers.read` and `towers.build`: from a spec or a config.json to a tower."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from ape_jax.config.outside import is_precomputed, is_torch
from ape_jax.errors import UserError
from ape_jax.nn import int8
from ape_jax.storage import memory
from ape_jax.towers import layouts, precomputed
from ape_jax.towers.family import Family, find
from ape_jax.towers.files import names, reading, sections, sources
from ape_jax.towers.text import family as text_family
from ape_jax.towers.text import head
from ape_jax.towers.text.transformer import TextConfig
from ape_jax.towers.torch import reading as torch_reading
from ape_jax.towers.tower import Kind, Tower, TowerConfig

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
INT8 = "int8"  # Of parameters only: what is no kernel of a block stays in float32.


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Blueprint:
    """A tower without its weights: `config` is as loaded, `file_config` as the file has it."""

    int8: bool
    family: Family
    file_config: Any
    config: Any
    options: dict[str, Any]
    types: dict[str, Any]

    def module(self, config: Any, unroll: bool) -> nn.Module:
        return self.family.module(config=config, unroll=unroll, **self.types)


def _blueprint(
    family: Family,
    file_config: TowerConfig,
    *,
    dtype: str,
    param_dtype: str,
    options: Mapping[str, Any],
) -> _Blueprint:
    types = {}
    for key, value in (("dtype", dtype), ("param_dtype", param_dtype)):
        try:
            name = value if isinstance(value, str) else np.dtype(value).name
        except TypeError:
            name = value
        known = {**DTYPES, INT8: jnp.float32} if key == "param_dtype" else DTYPES
        if not isinstance(name, str) or name not in known:
            raise UserError(f"{key} is {value!r}; write one of {', '.join(known)}")
        types[key] = known[name]
    options = {k: v for k, v in options.items() if v is not None}
    return _Blueprint(
        int8=param_dtype == INT8,
        family=family,
        file_config=file_config,
        config=family.adapt(file_config, options),
        options=options,
        types=types,
    )


def build(
    config: Mapping[str, Any] | str | Path,
    *,
    kind: Kind | None = None,
    dtype: str = "bfloat16",
    param_dtype: str = "float32",
    image_size: int | None = None,
    max_length: int | None = None,
    prefix: str | None = None,
    unroll: bool = False,
) -> tuple[nn.Module, TowerConfig]:
    """The module and config that a config.json describes, without weights.

    Example:
      module, config = towers.build({"model_type": "vit"}, image_size=256)
      shapes = towers.abstract_params(module)

    Args:
      config: the content of a config.json, its path, or the path of its directory.
      kind: which tower of a config of two.
      dtype, param_dtype, image_size, max_length, prefix, unroll: as for `read`.

    Raises:
      UserError: as `read`, as far as the config is concerned.
    """
    directory = None
    if isinstance(config, Mapping):
        values, label = config, "the tower's config"
    else:
        path = Path(config)
        path = path / "config.json" if path.is_dir() else path
        values, label, directory = sources.read_json(path), str(path), path.parent
    section = sections.find(values, label, kind)
    family, fields = find(section.config, section.label, kind, directory)
    plan = _blueprint(
        family,
        layouts.parsed(family, fields)[0],
        dtype=dtype,
        param_dtype=param_dtype,
        options={"image_size": image_size, "max_length": max_length, "prefix": prefix},
    )
    return plan.module(plan.config, unroll), plan.config


def input_size(spec: str | Path) -> tuple[int, int]:
    """Pixels a side that an image tower takes by its files, and those of a patch; reads no weights.

    Args:
      spec: as for `read`.

    Raises:
      UserError: as `read`, as far as the config is concerned.
    """
    found = layouts.found(sources.resolve(str(spec)), "image")
    config: Any = found.config
    prepare: Any = found.prepare(config, {})
    return prepare.transform.size, config.patch_size


def read(
    spec: str | Path,
    *,
    kind: Kind | None = None,
    dtype: str = "bfloat16",
    param_dtype: str = "float32",
    image_size: int | None = None,
    max_length: int | None = None,
    prefix: str | None = None,
    unroll: bool = False,
    trust_remote_code: bool = False,
    torch_device: str = "auto",
) -> tuple[Tower, dict[str, Any]]:
    """Read a pretrained tower: its description, and its parameters as NumPy arrays.

    Args:
      spec: `hf:org/name[@revision]`, a directory (config.json + *.safetensors [+ tokenizer.json,
        preprocessor_config.json]), a big_vision `.npz` (for a text tower with its tokenizer
        beside it), `demo:NAME`, `torch:hf:NAME`, `torch:timm:NAME` or `torch:st:NAME` for a frozen
        tower that its own library runs in torch, or `features:WIDTH` for a side whose features are
        precomputed (options do not apply to it).
      kind: "image" or "text"; needed where one directory holds both, else a check.
      dtype: input dtype of matrix products, "bfloat16" or "float32"; they accumulate in float32.
      param_dtype: dtype the parameters are kept in, "float32" or "bfloat16"; with "int8" the
        kernels of the blocks are, for a tower that is not trained (`int8.quantized`).
      image_size: pixels a side, for another input size than the files say: the position table is
        interpolated once and `prepare` makes images of that size. (A tower encodes any size
        without this; then the table is interpolated in the forward pass, with the same result.)
      max_length: of texts, in tokens.
      prefix: put before each text ("query: ").
      unroll: unroll the scan over blocks, so that XLA's cost analysis counts every block.
      trust_remote_code: of `torch:`, whether Python code in the model's files may be run.
      torch_device: of `torch:`, "cpu" or "cuda"; "auto" is a GPU where torch has one.

    Returns:
      The tower, and its parameters on the host: where they lie on devices is the caller's choice.

    Raises:
      UserError: the spec names nothing, the config is of no supported family, a tensor is
        missing, unexpected or misshapen, a file is damaged, or an option does not fit.
    """
    if is_precomputed(spec):
        return precomputed.read(str(spec), kind), {}
    if is_torch(spec):
        options = {"image_size": image_size, "max_length": max_length, "prefix": prefix}
        types = {"dtype": dtype, "param_dtype": param_dtype}
        how = {"code": trust_remote_code, "device": torch_device}
        return torch_reading.read(str(spec), kind, **types, **options, **how), {}
    with reading.tower(str(spec)) as said:
        found = layouts.found(sources.resolve(str(spec)), kind)
        family = found.family
        plan = _blueprint(
            family,
            found.config,
            dtype=dtype,
            param_dtype=param_dtype,
            options={"image_size": image_size, "max_length": max_length, "prefix": prefix},
        )
        params, digest = _read(plan, found.tables, found.tensors)
        sources.check_digest(str(spec), digest)
        options, prepare = plan.options, found.prepare(plan.config, plan.options)
        config = text_family.without_prompt(plan.config, prepare)
        if isinstance(config, TextConfig) and config.head and found.modules:
            own, told = head.read_params(config.head, found.modules.root, config.width)
            own = jax.tree.map(lambda a: a.astype(plan.types["param_dtype"]), own)
            params, options = {**params, "head": own} if own else params, {**options, "head": told}
        if plan.int8:  # Among the options, since the module has no part in it.
            params, options = int8.quantized(params), {**options, "weights": INT8}
        tower = Tower(
            kind=family.kind,
            module=plan.module(config, unroll),
            config=config,
            prepare=prepare,
            spec=str(spec),
            digest=digest,
            options=options,
            excluded=found.excluded,
            notes=said.lines(),
        )
    return tower, params


def outline(
    spec: str | Path, kind: Kind | None = None
) -> tuple[Tower, Mapping[str, jax.ShapeDtypeStruct]]:
    """A tower as `read` gives it, with the shapes of its parameters: no weights are read.

    Args:
      spec: as for `read`, of a tower that JAX runs.
      kind: which tower of a directory of two.

    Returns:
      The tower, whose digest is empty, and shapes by path; those of the files are checked.

    Raises:
      UserError: as `read`, but for tensors that cannot be read.
    """
    with reading.tower(str(spec)) as said:
        found = layouts.found(sources.resolve(str(spec)), kind)
        module = found.family.module(config=found.config)
        shapes = abstract_params(module)
        heads: int = found.config.heads
        names.match(found.tables, found.tensors, names.flat_shapes(shapes), heads=heads)
        tower = Tower(
            kind=found.family.kind,
            module=module,
            config=found.config,
            prepare=found.prepare(found.config, {}),
            spec=str(spec),
            digest="",
            excluded=found.excluded,
            notes=said.lines(),
        )
    flat: dict[str, Any] = flatten_dict(shapes, sep="/")
    return tower, flat


def _read(
    plan: _Blueprint, tables: tuple[names.NameTable, ...], tensors: names.Tensors
) -> tuple[dict[str, Any], str]:
    """The parameters of a tower and the digest of what they were read from."""
    expected = _expected(plan.module(plan.file_config, unroll=False))
    if getattr(plan.file_config, "head", None) is not None:  # In files of its own.
        expected = {path: v for path, v in expected.items() if not path.startswith("head/")}
    matched, found = names.match(tables, tensors, expected, heads=plan.file_config.heads)
    check_memory(tensors.label, expected.values(), plan.types["param_dtype"])
    digest = sources.Digest()

    def read(name: str) -> np.ndarray:
        array = tensors.read(name)
        digest.add(name, array)
        return array

    _check_computed(plan, matched, tensors)
    params = names.load_params(matched, found, expected, read, plan.types["param_dtype"])
    return plan.family.resize(params, plan.file_config, plan.config), digest.hexdigest()


def check_memory(label: str, shapes: Iterable[names.Shape], dtype: Any) -> None:
    """Raises UserError for a tower that memory has no room for.

    Args:
      label: its file, for messages.
      shapes: of its parameters.
      dtype: they are kept in.
    """
    need = sum(math.prod(shape) for shape in shapes) * np.dtype(dtype).itemsize
    free = memory.free_bytes()
    if free is not None and need > free:
        smaller = "" if np.dtype(dtype).itemsize < 4 else " param_dtype='bfloat16' or"
        raise UserError(
            f"{label}: its parameters take {memory.shown(need)} in {np.dtype(dtype).name}, and "
            f"{memory.shown(free)} of memory are free; write{smaller} a smaller tower"
        )


def _check_computed(plan: _Blueprint, matched: names.Plan, tensors: names.Tensors) -> None:
    """Raises UserError where a file holds other numbers than its config describes."""
    computed = plan.family.computed(plan.file_config)
    for rule in matched.table.rules:
        name, want = matched.prefix + rule.file, computed.get(str(rule.path))
        if want is None or name not in tensors.shapes:
            continue
        own = np.asarray(tensors.read(name), np.float32)
        # Half precision rounds by a hundredth of that.
        if own.shape != want.shape or np.abs(own - want).max() > 1e-2 * np.abs(want).max():
            raise UserError(
                f"{tensors.label}: tensor {name!r} holds other numbers than {plan.family.title} "
                "computes by its config.json; for a frozen tower that reads them, write "
                "torch:hf:NAME_OR_DIR"
            )


@lru_cache(maxsize=32)  # tracing `init` takes longer than reading a small tower
def _expected(module: nn.Module) -> Mapping[str, names.Shape]:
    """The shapes of a module's parameters, by path."""
    return names.flat_shapes(abstract_params(module))


def example_batch(config: TowerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of one, enough to shape the parameters."""
    if config.kind == "image":
        size: int = vars(config)["image_size"]  # Of every image tower's config.
        shape = (1, size, size, 3)
        return {"image": jax.ShapeDtypeStruct(shape, jnp.float32)}
    return {
        "ids": jax.ShapeDtypeStruct((1, 8), jnp.int32),
        "mask": jax.ShapeDtypeStruct((1, 8), jnp.bool_),
    }


def abstract_params(module: nn.Module) -> dict[str, Any]:
    """The parameter tree of a module as `jax.ShapeDtypeStruct`s; nothing is allocated."""
    init = partial(module.init, pooling=module.config.pooling)
    return jax.eval_shape(init, jax.random.key(0), example_batch(module.config))["params"]
