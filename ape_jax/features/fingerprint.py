"""Fingerprints of features: all that they depend on, in parts that messages can name."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp

from ape_jax.features.encode import FrozenTower
from ape_jax.features.encoder import FeatureEncoder
from ape_jax.towers.outside import OutsidePrepare

# Raised by hand when a change of the code changes features that were right before.
_VERSION = "1"
_PROBES = (
    "The quick brown fox, 12,345.67 % of it: jumps over naïve Straßen & cafés!",
    "ein Kater; un chat; gatto; кошка; γάτα; قطة; 猫; ねこ; 고양이; बिल्ली; 🐈",
    "aa bb cc dd ee ff gg hh ii jj kk ll mm nn oo pp qq rr ss tt uu vv ww xx yy zz",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Record of everything that one set of features depends on.

    Attributes:
      kind: "images" or "captions".
      tower: what the tower was loaded from, as the user wrote it; not part of the identity.
      pairs: what the pairs were opened from, likewise.
      parts: everything that changes the features, by name.
    """

    kind: Literal["images", "captions"]
    tower: str
    pairs: str
    parts: Mapping[str, str]

    @functools.cached_property
    def digest(self) -> str:
        """Sha256 over the kind and the parts: equal for equal features."""
        text = json.dumps([_VERSION, self.kind, dict(self.parts)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """A directory name that a person can read and that ends in the digest."""
        return f"{self.kind}-{_slug(self.pairs)}-{_slug(self.tower)}-{self.digest[:12]}"

    def differences(self, other: Mapping[str, str]) -> list[str]:
        """Names the parts in which another differs, `layer: 9 -> -1`, other's value first."""
        names = sorted(self.parts.keys() | other.keys())
        return [
            f"{name}: {_short(other.get(name))} -> {_short(self.parts.get(name))}"
            for name in names
            if self.parts.get(name) != other.get(name)
        ]


def of_images(frozen: FeatureEncoder, pairs: Any, dtype: str, reading: Mapping[str, Any]) -> Any:
    """The fingerprint of image features.

    Args:
      frozen: the tower and what is read from it.
      pairs: with `spec` and `digest`.
      dtype: of the stored numbers.
      reading: how an image becomes the tower's input beside the tower's own preparation.
    """
    parts = {
        **tower_parts(frozen),
        **_flat("", reading),
        "stored dtype": dtype,
        "pairs content": pairs.digest,
    }
    return Fingerprint(kind="images", tower=frozen.tower.spec, pairs=pairs.spec, parts=parts)


def of_captions(
    frozen: FeatureEncoder, texts: Sequence[str], spec: str, dtype: str, extra: Mapping[str, Any]
) -> Fingerprint:
    """The fingerprint of token encodings of distinct texts, which were read from `spec`."""
    content = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        content.update(len(encoded).to_bytes(8, "little") + encoded)
    parts = {
        **tower_parts(frozen),
        **_flat("", extra),
        "stored dtype": dtype,
        "captions": f"{len(texts)} texts {content.hexdigest()}",
    }
    return Fingerprint(kind="captions", tower=frozen.tower.spec, pairs=spec, parts=parts)


def tower_parts(frozen: FeatureEncoder) -> dict[str, str]:
    """All of a frozen tower that its features depend on: weights, preparation, what is read."""
    tower = frozen.tower
    sliced = isinstance(frozen, FrozenTower) and frozen.is_sliced
    if tower.outside is not None:
        return {**_read_parts(frozen), **tower.outside.settings(), **tower.outside.versions()}
    parts = {
        **_read_parts(frozen),
        "compute dtype": jnp.dtype(tower.module.dtype).name,
        "parameter dtype": jnp.dtype(tower.module.param_dtype).name,
        "attention": "float32" if sliced else jnp.dtype(tower.module.dtype).name,
    }
    # Of the texts or of the images: a directory's tensors may be the same and these not.
    prepare = getattr(tower.prepare, "transform", tower.prepare)
    if hasattr(prepare, "encode"):
        parts["prefix"] = repr(prepare.prefix)
        parts["maximum length"] = str(prepare.max_length)
        parts["tokenizer"] = preparation(prepare)
    else:
        parts.update(_flat("preparation ", dataclasses.asdict(prepare)))
    return parts


def _read_parts(frozen: FeatureEncoder) -> dict[str, str]:
    """A tower's weights and options, and what is read of it."""
    return {
        "tower weights": frozen.tower.digest,
        "layer": str(frozen.layer),
        "pooling": frozen.pooling,
        **_flat("tower ", _set(frozen.tower.config)),
        **_flat("option ", frozen.tower.options),
    }


def preparation(prepare: Any) -> str:
    """A hash of a preparation: of image settings, or of probe texts through a tokenizer.

    A tokenizer has no canonical form to hash; a different one tells itself by its ids.
    """
    if isinstance(prepare, OutsidePrepare):
        return hashlib.sha256(prepare.identity.encode()).hexdigest()[:16]
    if not hasattr(prepare, "encode"):
        return hashlib.sha256(repr(prepare).encode()).hexdigest()[:16]
    ids = prepare(list(_PROBES))["ids"]
    settings = (prepare.prefix, prepare.max_length, ids.tolist())
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def _set(config: Any) -> dict[str, Any]:
    """The fields of a config that features depend on, less those that are added at a default."""
    values = dataclasses.asdict(config)
    for field in dataclasses.fields(config):
        if field.metadata.get("beside"):
            del values[field.name]
    added = {f.name for f in dataclasses.fields(config) if f.metadata.get("added")}
    defaults = {f.name: f.default for f in dataclasses.fields(config) if f.name in added}
    return {k: v for k, v in values.items() if k not in added or v != defaults[k]}


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {f"{prefix}{name}": str(value) for name, value in values.items()}


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    return value if len(value) <= 40 else f"{value[:24]}..."


def _slug(spec: str) -> str:
    """The end of a spec, of which a directory name is made; a path's last component."""
    last = re.split(r"[/\\]", spec.rstrip("/\\"))[-1]
    return re.sub(r"[^A-Za-z0-9_.]+", "_", last).strip("_.")[:32] or "set"
