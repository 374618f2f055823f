"""`towers.load`: a tower bound to its weights, for people at a prompt."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from ape_jax import arguments
from ape_jax.errors import UserError, path_text, whole_number
from ape_jax.images.packed import PackedTransform
from ape_jax.images.transforms import ImageTransform
from ape_jax.terminal.progress import track
from ape_jax.towers.files.reading import say_once
from ape_jax.towers.loading import read
from ape_jax.towers.outside import OWN, OutsideEncoder, same_length_batches
from ape_jax.towers.text.head import unit
from ape_jax.towers.text.tokens import TextPrepare
from ape_jax.towers.tower import Encoded, Params, Tower, forward, pool

# As of image.size and text.max_length: what is larger takes all memory before anything is said.
_MOST = {"image_size": 4096, "max_length": 2**16}
_encode = jax.jit(forward, static_argnums=(0, 1, 2, 3))


@dataclasses.dataclass(frozen=True, eq=False)
class BoundTower:
    """A tower bound to its weights: what `towers.load` gives to people at a prompt.

    Example:
      tower = towers.load("demo:vit_s14")
      out = tower(tower.prepare(["cat.png"]))      # out.tokens, out.mask, out.pooled

    Attributes:
      tower: the description.
      params: nested dict of arrays; blocks stacked [L, ...] under "blocks".
    """

    tower: Tower
    params: Params = dataclasses.field(repr=False)

    @property
    def config(self) -> Any:
        """The family's TowerConfig."""
        return self.tower.config

    @property
    def prepare(self) -> Any:
        """Raw images or texts -> batch of numpy arrays."""
        return self.tower.prepare

    def __call__(
        self, batch: Mapping[str, Any], layer: int = -1, pooling: str | None = None
    ) -> Encoded:
        """Encode one batch (compiled once a shape); layer and pooling as for `Tower.apply`."""
        layer = whole_number(layer, "layer", None)
        if pooling is not None:
            arguments.text(pooling, "pooling")
        if not isinstance(batch, Mapping):
            raise UserError(f"batch: expected what prepare gives, found {type(batch).__name__}")
        if isinstance(self.prepare, TextPrepare):
            _check_tokens(batch, getattr(self.config, "vocab_size", None))
        elif _is_plain(self.prepare):
            _check_images(batch)
        if self.tower.outside is not None:
            return _encode_outside(self.tower, self.tower.outside, batch, layer, pooling)
        arrays = {k: x if hasattr(x, "dtype") else np.asarray(x) for k, x in batch.items()}
        depth, final, pooling = self.tower.resolve(layer, pooling)
        # Only blocks that run are handed over, and the compiled function is shared by all towers
        # of the same module.
        return _encode(self.tower.module, depth, final, pooling, self.params, arrays)

    def encode(self, inputs: Sequence[Any], *, batch: int = 32) -> Float32[np.ndarray, "n e"]:
        """One vector an image or a text, by the tower's own pooling.

        Of a sentence-transformers folder these are the vectors of `SentenceTransformer.encode`,
        with the folder's default prompt, its Dense modules, its Normalize and `truncate_dim`. Where
        no file of a text tower says how it pools, the mean is taken, which is said.

        Example:
          vectors = towers.load("hf:sentence-transformers/LaBSE").encode(["a cat", "un chat"])

        Args:
          inputs: n images or texts, as `prepare` takes them.
          batch: how many are encoded at a time.

        Returns:
          f32 [n, e], in the order of the inputs.

        Raises:
          UserError: for an input that cannot be read, none at all, or a tower that does not pool.
        """
        batch = whole_number(batch, "batch")
        inputs = list(arguments.items(inputs, "inputs", f"{self.tower.kind}s"))
        if not len(inputs):
            raise UserError("expected images or texts, found none; give at least one")
        if self.config.pooling == "none":
            raise UserError(f"the {self.config.family} tower does not pool; call it, for tokens")
        if self.tower.outside is not None:
            return _encode_all_outside(self.tower, self.tower.outside, list(inputs), batch)
        pooling = None if getattr(self.config, "pooling_known", True) else "mean"
        if pooling:
            say_once(
                f"{self.tower.spec}: no file says how this tower pools, so the mean is taken; its "
                f"family is often read by {self.config.pooling!r}"
            )
        is_text, inputs = isinstance(self.prepare, TextPrepare), list(inputs)
        bodies: list[Any] = self.prepare.bodies(inputs) if is_text else inputs
        order = np.argsort([-len(body) for body in bodies], kind="stable") if is_text else None
        order = np.arange(len(inputs)) if order is None else order
        starts, pooled = range(0, len(order), batch), []
        for start in track(starts, f"encoding {self.tower.kind}s", len(starts), "batches"):
            chosen = order[start : start + batch]
            # The last batch is filled up: another number of rows would compile another program.
            rows = [bodies[int(i)] for i in np.resize(chosen, min(batch, len(order)))]
            made = self.prepare.pad(rows) if is_text else self.prepare(rows)
            out = self(made, pooling=pooling)
            pooled.append(np.asarray(out.pooled, np.float32)[: len(chosen)])
        vectors = np.concatenate(pooled)[np.argsort(order)]
        vectors = _unit(vectors) if getattr(self.config, "unit", False) else vectors
        return np.ascontiguousarray(vectors[:, : getattr(self.config, "dim", 0) or None])


def _is_plain(prepare: Any) -> bool:
    """Whether a batch holds images as they are, and not as packed patches or another library's."""
    transform = getattr(prepare, "transform", None)
    return isinstance(transform, ImageTransform) and not isinstance(transform, PackedTransform)


def _check_tokens(batch: Mapping[str, Any], vocabulary: int | None) -> None:
    """Raises UserError unless a batch holds tokens that the table has, and their mask."""
    if not {"ids", "mask"} <= set(batch):
        raise UserError(f"batch: expected 'ids' and 'mask', found {sorted(map(str, batch))}")
    ids = arguments.real_array(batch["ids"], "batch: 'ids'")
    mask = np.asarray(batch["mask"])
    if ids.ndim != 2 or ids.shape != mask.shape or not ids.size or mask.dtype != bool:
        raise UserError(
            f"batch: expected 'ids' and a true or false 'mask' of one shape [B, T], found "
            f"{list(ids.shape)} and {mask.dtype} {list(mask.shape)}"
        )
    if not np.issubdtype(ids.dtype, np.integer):
        raise UserError(f"batch: 'ids' are {ids.dtype}; expected whole numbers")
    if vocabulary and not (0 <= ids.min() and ids.max() < vocabulary):
        raise UserError(
            f"batch: 'ids' are from {ids.min()} to {ids.max()}; the tower has {vocabulary} tokens"
        )


def _check_images(batch: Mapping[str, Any]) -> None:
    """Raises UserError unless a batch holds images."""
    if "image" not in batch:
        raise UserError(f"batch: expected 'image', found {sorted(map(str, batch))}")
    image = arguments.real_array(batch["image"], "batch: 'image'")
    if image.ndim != 4 or image.shape[-1] != 3 or not image.size:
        raise UserError(f"batch: expected 'image' [B, H, W, 3], found {list(image.shape)}")


def _encode_outside(
    tower: Tower,
    outside: OutsideEncoder,
    batch: Mapping[str, Any],
    layer: int,
    pooling: str | None,
) -> Encoded:
    """Encodes a batch with the tower's own library."""
    pooling = str(tower.config.pooling) if pooling is None else pooling
    tokens, mask = (jnp.asarray(x) for x in outside.tokens(batch, layer))
    if pooling == OWN:
        pooled = jnp.asarray(outside.own(batch))
    else:
        pooled = pool(tokens, mask, pooling, tower.config)
    return Encoded(tokens=tokens, mask=mask, pooled=pooled)


def _encode_all_outside(
    tower: Tower, outside: OutsideEncoder, inputs: list[Any], batch: int
) -> Float32[np.ndarray, "n e"]:
    """One vector an input, by the tower's own library; texts of one length together."""
    is_text, pooling = tower.kind == "text", str(tower.config.pooling)
    lengths = outside.lengths(inputs) if is_text else np.zeros(len(inputs), np.int64)
    batches = list(same_length_batches(lengths, batch))
    found: dict[int, np.ndarray] = {}
    for chosen in track(batches, f"encoding {tower.kind}s", len(batches), "batches"):
        prepared = tower.prepare([inputs[int(i)] for i in chosen])
        if pooling == OWN:
            pooled = outside.own(prepared)
        else:
            pooled = np.asarray(pool(*outside.tokens(prepared, -1), pooling, tower.config))
        found |= zip(map(int, chosen), pooled)
    return np.stack([found[i] for i in range(len(inputs))])


def _unit(vectors: Float32[np.ndarray, "n e"]) -> Float32[np.ndarray, "n e"]:
    return np.asarray(unit(jnp.asarray(vectors)))


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `read`, their names and types checked; their values it checks itself.

    Raises:
      UserError: naming the option.
    """
    options = dict(options)
    known = [name for name in inspect.signature(read).parameters if name != "spec"]
    for name, value in options.items():
        if name not in known:
            raise UserError(f"there is no option {name!r}; a tower takes {', '.join(known)}")
        if name in ("unroll", "trust_remote_code"):
            arguments.truth(value, name)
        elif value is None:
            continue
        elif name in ("image_size", "max_length"):
            options[name] = whole_number(value, name)
            if options[name] > _MOST[name]:
                raise UserError(f"{name}: expected at most {_MOST[name]}, found {value}")
        elif name in ("kind", "prefix", "torch_device"):
            arguments.text(value, name)
    if (kind := options.get("kind")) not in (None, "image", "text"):
        raise UserError(f"kind: expected 'image' or 'text', found {kind!r}")
    return options


def load(spec: str | Path, **options: Any) -> BoundTower:
    """Load a pretrained tower, bound to its weights; spec and options as for `read`.

    Example:
      tower = towers.load("hf:facebook/dinov2-small", dtype="float32")
      out = tower(tower.prepare(["cat.png"]))

    Raises:
      UserError: as `read`.
    """
    spec = path_text(spec, "tower")
    options = _checked(options)
    tower, params = read(spec, **options)
    return BoundTower(tower, jax.tree.map(jnp.asarray, params))
