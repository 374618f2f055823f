"""From a `torch:` spec to a tower that transformers, timm or sentence-transformers runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ape_jax.errors import UserError
from ape_jax.towers.files import reading as notes
from ape_jax.towers.outside import OWN, OutsideEncoder, OutsidePrepare
from ape_jax.towers.placeholder import OutsideConfig, Placeholder
from ape_jax.towers.torch import folders, hf_images, hf_texts, libraries, st_texts, timm_images
from ape_jax.towers.torch.running import Running, running
from ape_jax.towers.tower import Kind, Tower

_KINDS: Mapping[str, tuple[Kind, ...]] = {
    "timm": ("image",),
    "st": ("text",),
    "hf": ("image", "text"),
}
_PREPARED_BY: Mapping[Kind, tuple[str, ...]] = {
    "image": ("preprocessor_config.json", "processor_config.json"),
    "text": ("tokenizer.json", "tokenizer_config.json"),
}
_RANDOM = 1e-3  # Relative difference of two runs; a GPU's sums differ by far less.


def read(
    spec: str,
    kind: Kind | None,
    *,
    dtype: str,
    param_dtype: str,
    image_size: int | None = None,
    max_length: int | None = None,
    prefix: str | None = None,
    code: bool = False,
    device: str = "auto",
) -> Tower:
    """Reads a tower that another library runs.

    Args:
      spec: `torch:hf:NAME`, `torch:timm:NAME` or `torch:st:NAME`.
      kind: "image" or "text"; needed where a directory holds both.
      dtype: "float32", or "bfloat16" for products in bfloat16.
      param_dtype: what the parameters are kept in.
      image_size: refused, because the library prepares images.
      max_length: of texts, in tokens.
      prefix: put before each text.
      code: whether the directory's own Python code may be run.
      device: of torch; "auto" is a GPU where there is one.

    Raises:
      UserError: a library is not installed or cannot read the model, code would have to be run, or
        an option does not fit; the message then begins with the option.
    """
    found = folders.parse(spec)
    if image_size is not None:
        raise UserError(
            f"image_size is {image_size}; {spec} has its own library prepare images: leave it out"
        )
    libraries.module(found.library, spec)
    how = running(dtype, param_dtype, libraries.device(device, f"tower {spec!r}"))
    texts = {"max_length": max_length, "prefix": prefix}
    options = {**texts, "trust_remote_code": code or None}
    with notes.tower(spec) as said:
        path = folders.resolve(found, code=code)
        kind = _kind(found, path, kind)
        encoder = _encoder(found, path, kind, how, code, texts)
        tower = _tower(spec, kind, encoder, how, folders.digest(path, code=code), options)
    return dataclasses.replace(tower, notes=said.lines())


def _kind(spec: folders.Spec, path: Path, kind: Kind | None) -> Kind:
    """The kind of a tower, by its library or its files.

    Raises:
      UserError: where it is of another kind, or could be of both.
    """
    fits: list[Kind] = list(_KINDS[spec.library])
    if kind is None and len(fits) > 1:
        fits = [k for k in fits if any((path / name).is_file() for name in _PREPARED_BY[k])]
        if len(fits) != 1:
            raise UserError(
                f"tower {spec.written!r}: say which side it is for, kind='image' or 'text'"
            )
    if kind is not None and kind not in fits:
        raise UserError(
            f"tower {spec.written!r} is a tower of kind {fits[0]!r}, not {kind!r}; name another"
        )
    return kind or fits[0]


def _encoder(
    spec: folders.Spec,
    path: Path,
    kind: Kind,
    how: Running,
    code: bool,
    texts: Mapping[str, Any],
) -> OutsideEncoder:
    if spec.library == "timm":
        return timm_images.read(spec.written, path, how)
    if spec.library == "st":
        return st_texts.read(spec.written, path, how, code=code, **texts)
    if kind == "image":
        return hf_images.read(spec.written, path, how, code=code)
    return hf_texts.read(spec.written, path, how, code=code, **texts)


def _tower(
    spec: str,
    kind: Kind,
    encoder: OutsideEncoder,
    how: Running,
    digest: str,
    options: Mapping[str, Any],
) -> Tower:
    with libraries.loading(spec, "the model cannot be run"):
        example = encoder.prepare([_example(kind)])
        prefix_tokens = getattr(encoder, "prefix_tokens", 0)
        pooling = OWN if encoder.pools() else "cls" if prefix_tokens else "mean"
        _check_repeats(spec, encoder, example, pooling)
        depth = encoder.depth()
        width = _width(encoder, example, -1, "none" if pooling != OWN else pooling)
    if pooling != OWN:
        notes.assumed(f"the model pools nothing by itself, so its own pooling is {pooling!r}")
    config = OutsideConfig(
        kind=kind,
        family=":".join(spec.split(":")[:2]),
        width=width,
        depth=depth,
        heads=1,
        mlp_width=1,
        pooling=pooling,
        activation="gelu",
        norm_eps=1e-6,
        prefix_tokens=prefix_tokens,
    )
    types: dict[str, Any] = {key: jnp.dtype(getattr(how, key)) for key in ("dtype", "param_dtype")}
    tower = Tower(
        kind=kind,
        module=Placeholder(config=config, **types),
        config=config,
        prepare=OutsidePrepare(encoder, kind),
        spec=spec,
        digest=digest,
        options={name: value for name, value in options.items() if value is not None},
        outside=encoder,
    )
    return at(tower, -1, pooling)


def at(tower: Tower, layer: int, pooling: str) -> Tower:
    """The tower with the widths of what is read of it, which are measured.

    Args:
      tower: one that another library runs.
      layer: which hidden state is read.
      pooling: how it is pooled. Of a text "own" is one vector, in the place of its tokens.

    Raises:
      UserError: for a layer or a pooling that it does not have.
    """
    encoder = tower.outside
    if encoder is None:
        raise ValueError(f"{tower.spec} is run by JAX")
    if pooling == OWN and (layer != -1 or not encoder.pools()):
        where = f"at layer {layer}" if layer != -1 else "at all"
        raise UserError(f"pooling is 'own'; {tower.spec} has none {where}: write 'mean'")
    with libraries.loading(tower.spec, "the model cannot be run"):
        example = encoder.prepare([_example(tower.kind)])
        own = _width(encoder, example, -1, OWN) if encoder.pools() else 0
        only = pooling == OWN and tower.kind == "text"
        width = own if only else _width(encoder, example, layer, "none", own)
    # What lies above the layer is not counted: nothing reads it.
    depth = layer if layer > 0 else tower.config.depth
    config = dataclasses.replace(
        tower.config, width=width, own_width=own, pooling=pooling, depth=depth
    )
    return dataclasses.replace(tower, config=config, module=tower.module.clone(config=config))


def _width(
    encoder: OutsideEncoder, example: Mapping[str, Any], layer: int, pooling: str, other: int = 0
) -> int:
    """The width of an output; `other` where a model has no tokens and none are asked for."""
    if pooling == OWN:
        return encoder.own(example).shape[-1]
    try:
        return encoder.tokens(example, layer)[0].shape[-1]
    except UserError:
        if layer == -1 and other:
            return other
        raise


def _example(kind: Kind) -> Any:
    if kind == "text":
        return "a photo of a cat"
    return np.random.default_rng(0).integers(0, 256, (64, 80, 3)).astype(np.uint8)


def _check_repeats(
    spec: str, encoder: OutsideEncoder, example: Mapping[str, Any], pooling: str
) -> None:
    """Raises UserError for a model that gives something else for the same input each time."""
    once, again = (
        encoder.own(example) if pooling == OWN else encoder.tokens(example, -1)[0] for _ in range(2)
    )
    largest = np.abs(once).max()
    if not np.isfinite(largest):
        raise UserError(f"tower {spec!r}: its output is not finite; its weights are damaged")
    if once.shape != again.shape or np.abs(once - again).max() > _RANDOM * largest:
        raise UserError(
            f"tower {spec!r} gives another output for the same input each time, as models do that "
            "mask or hash at random; name another tower"
        )
